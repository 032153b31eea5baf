package twilio

import (
	"time"

	"herald/pkg/message"
	"herald/pkg/provider"
)

// Minimum waits after refusals for load.
const (
	rateWait     = time.Second
	dailyCapWait = 30 * time.Minute // a cap ends at midnight in the carrier's time zone
)

// codes is the table of Twilio's error codes for messages: https://www.twilio.com/docs/api/errors
var codes = provider.NewCodes(
	// The account or its credentials.
	provider.Row("20003", provider.PauseChannel(message.ChannelCredentials), "authentication failed"),
	provider.Row("20005", provider.PauseChannel(message.ChannelCredentials), "account is not active"),
	provider.Row("20006", provider.PauseChannel(message.ChannelCredentials), "access denied"),
	provider.Row("20008", provider.PauseChannel(message.ChannelCredentials), "test credentials cannot access the resource"),
	provider.Row("20403", provider.PauseChannel(message.ChannelCredentials), "forbidden"),
	provider.Row("20404", provider.PauseChannel(message.ChannelRefused), "the account or the resource was not found"),
	provider.Row("30002", provider.PauseChannel(message.ChannelCredentials), "account suspended"),

	// Too many messages.
	provider.Row("14107", provider.Throttle(rateWait), "message rate limit exceeded"),
	provider.Row("20429", provider.Throttle(rateWait), "too many requests"),
	provider.Row("21611", provider.Throttle(rateWait), "queue of the sender is full"),
	provider.Row("21730", provider.Throttle(rateWait), "system under maintenance"),
	provider.Row("30001", provider.Throttle(rateWait), "queue overflow"),
	provider.Row("30017", provider.Throttle(rateWait), "carrier network congestion"),
	provider.Row("30022", provider.Throttle(rateWait), "US A2P 10DLC: rate limit exceeded"),
	provider.Row("63017", provider.Throttle(rateWait), "rate limit exceeded"),
	provider.Row("63018", provider.Throttle(rateWait), "rate limit of the channel exceeded"),
	provider.Row("30023", provider.Throttle(dailyCapWait), "US A2P 10DLC: daily message cap reached"),
	provider.Row("30027", provider.Throttle(dailyCapWait), "US A2P 10DLC: daily limit of T-Mobile reached"),
	provider.Row("63038", provider.Throttle(dailyCapWait), "daily message limit of the account exceeded"),

	// Failures inside Twilio or the carrier, after which the message may have been sent.
	provider.Row("20500", provider.MaybeSent, "internal server error"),
	provider.Row("20503", provider.MaybeSent, "service unavailable"),
	provider.Row("30020", provider.MaybeSent, "internal failure"),
	provider.Row("30021", provider.MaybeSent, "internal failure of the messaging service"),
	provider.Row("30410", provider.MaybeSent, "provider timeout"),
	provider.Row("63009", provider.MaybeSent, "channel provider returned an error"),
	provider.Row("63010", provider.MaybeSent, "internal error of the channel"),
	provider.Row("63012", provider.MaybeSent, "channel provider returned an internal error"),

	// The recipient.
	provider.Row("21211", provider.Refuse(message.RecipientRefused), "invalid 'To' number"),
	provider.Row("21214", provider.Refuse(message.RecipientRefused), "'To' number cannot be reached"),
	provider.Row("21217", provider.Refuse(message.RecipientRefused), "number does not appear to be valid"),
	provider.Row("21401", provider.Refuse(message.RecipientRefused), "invalid phone number"),
	provider.Row("21407", provider.Refuse(message.RecipientRefused), "type of number does not support SMS"),
	provider.Row("21408", provider.Refuse(message.RecipientRefused), "sending to the region is not enabled"),
	provider.Row("21608", provider.Refuse(message.RecipientRefused), "a trial account reaches verified numbers only"),
	provider.Row("21612", provider.Refuse(message.RecipientRefused), "no route from 'From' to 'To'"),
	provider.Row("21614", provider.Refuse(message.RecipientRefused), "'To' is not a mobile number"),
	provider.Row("21635", provider.Refuse(message.RecipientRefused), "'To' number cannot be a landline"),
	provider.Row("30003", provider.Refuse(message.RecipientRefused), "unreachable handset"),
	provider.Row("30005", provider.Refuse(message.RecipientRefused), "unknown handset"),
	provider.Row("30006", provider.Refuse(message.RecipientRefused), "landline or unreachable carrier"),
	provider.Row("30011", provider.Refuse(message.RecipientRefused), "number does not receive MMS in its region"),
	provider.Row("63003", provider.Refuse(message.RecipientRefused), "channel does not know the 'To' address"),
	provider.Row("63024", provider.Refuse(message.RecipientRefused), "invalid recipient"),

	// The recipient's consent.
	provider.Row("21610", provider.Refuse(message.ConsentRefused), "recipient has opted out"),
	provider.Row("30004", provider.Refuse(message.ConsentRefused), "message blocked"),
	provider.Row("63014", provider.Refuse(message.ConsentRefused), "blocked by the recipient"),
	provider.Row("63033", provider.Refuse(message.ConsentRefused), "recipient is blocked from receiving the message"),
	provider.Row("63016", provider.Refuse(message.OutsideWindow), "outside the allowed window"),

	// The content.
	provider.Row("21602", provider.Refuse(message.ContentRefused), "message body is required"),
	provider.Row("21617", provider.Refuse(message.ContentRefused), "body exceeds 1600 characters"),
	provider.Row("21618", provider.Refuse(message.ContentRefused), "body cannot be sent"),
	provider.Row("21619", provider.Refuse(message.ContentRefused), "a body or media URL is required"),
	provider.Row("21620", provider.Refuse(message.ContentRefused), "invalid media URL"),
	provider.Row("21623", provider.Refuse(message.ContentRefused), "too many media files"),
	provider.Row("30007", provider.Refuse(message.ContentRefused), "filtered as spam"),
	provider.Row("30019", provider.Refuse(message.ContentRefused), "content is larger than the carrier allows"),
	provider.Row("63005", provider.Refuse(message.ContentRefused), "channel did not accept the content"),
	provider.Row("63013", provider.Refuse(message.ContentRefused), "violates a policy of the channel provider"),
	provider.Row("63021", provider.Refuse(message.ContentRefused), "invalid content"),

	// The sender.
	provider.Row("21212", provider.RefuseSender(), "invalid 'From' number"),
	provider.Row("21601", provider.RefuseSender(), "number does not send SMS"),
	provider.Row("21603", provider.RefuseSender(), "'From' number is required"),
	provider.Row("21606", provider.RefuseSender(), "'From' number does not belong to the account or does not send SMS"),
	provider.Row("21607", provider.RefuseSender(), "'From' number does not send SMS"),
	provider.Row("21609", provider.RefuseSender(), "invalid status callback of the sender"),
	provider.Row("21659", provider.RefuseSender(), "'From' is not a number of Twilio or a short code in the region"),
	provider.Row("21660", provider.RefuseSender(), "'From' number does not belong to the account"),
	provider.Row("21661", provider.RefuseSender(), "'From' number does not send SMS"),
	provider.Row("21910", provider.RefuseSender(), "'From' and 'To' are of different channels"),
	provider.Row("21701", provider.RefuseSender(), "messaging service does not exist"),
	provider.Row("21703", provider.RefuseSender(), "messaging service has no numbers"),
	provider.Row("21704", provider.RefuseSender(), "messaging service is not usable"),
	provider.Row("21705", provider.RefuseSender(), "messaging service is invalid"),
	provider.Row("30018", provider.RefuseSender(), "carrier requires registration of the sender"),
	provider.Row("30024", provider.RefuseSender(), "numeric sender is not provisioned with the carrier"),
	provider.Row("30032", provider.RefuseSender(), "toll-free number is not verified"),
	provider.Row("30034", provider.RefuseSender(), "US A2P 10DLC: number is not registered"),
	provider.Row("63007", provider.RefuseSender(), "channel with the 'From' address does not exist"),
)
