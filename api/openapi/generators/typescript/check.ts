// What both clients in TypeScript need.

/** The address of the Herald that the clients call. */
export const url = process.env["HERALD_URL"] ?? "";

/** The API key that the clients send. */
export const key = process.env["HERALD_API_KEY"] ?? "";

/** Ends the program with an error that shows what was received, unless a condition holds. */
export function check(condition: boolean, received: unknown): asserts condition {
  if (!condition) throw new Error(`unexpected: ${JSON.stringify(received)}`);
}

/** Calls read until its result is done, for at most a minute. */
export async function until<T>(read: () => Promise<T>, done: (value: T) => boolean): Promise<T> {
  for (const end = Date.now() + 60_000; ; ) {
    const value = await read();
    if (done(value)) return value;
    check(Date.now() < end, value);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
