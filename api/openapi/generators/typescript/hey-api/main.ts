// The client of @hey-api/openapi-ts: it sends a single and a bulk, and reads a refusal.
import { check, key, until, url } from "../check.js";
import { client } from "./client/client.gen.js";
import { getBulk, sendMessage } from "./client/sdk.gen.js";
import type { FieldError, FilterRequest, MessageStatus } from "./client/types.gen.js";

client.setConfig({ baseUrl: url, auth: key });

const single = await sendMessage({
  headers: { "Idempotency-Key": crypto.randomUUID() },
  body: {
    message_data: { recipient: "customer@example.com", subject: "Hello", content: "Hi", metadata: { order: 17 } },
    message_type: "TRANSACTIONAL",
    priority: "HIGH",
  },
});
check(single.data !== undefined && "message_id" in single.data, single);
const status: MessageStatus = single.data.status;
check(status === "SENT" && single.data.cost > 0, single.data);

const filters: FilterRequest = {
  conditions: [{ logic: "OR", conditions: [{ field: "last_name", operator: "in", value: ["Example"] }] }],
};
const accepted = await sendMessage({
  headers: { Prefer: "respond-async" },
  body: { sender_type: "EMAIL", bulk_settings: { filters }, message_data: { subject: "Hello {{ first_name }}", content: "Hi" } },
});
check(accepted.data !== undefined && "bulk_id" in accepted.data, accepted);
const id = accepted.data.bulk_id;
const bulk = await until(
  async () => (await getBulk({ path: { id } })).data,
  (b) => b?.status === "COMPLETED",
);
check(bulk !== undefined && bulk.total_leads > 0 && bulk.messages_sent === bulk.total_leads, bulk);

const refused = await sendMessage({ body: { message_data: { recipient: "customer@example.com", content: "Hi" } } });
check(refused.response?.status === 422 && Array.isArray(refused.error?.detail), refused.error);
const mistakes: FieldError[] = refused.error.detail;
const place: (string | number)[] | undefined = mistakes[0]?.loc;
check(mistakes[0]?.type === "missing" && place?.join(".") === "body.message_data.subject", mistakes);
