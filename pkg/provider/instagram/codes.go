package instagram

import (
	"time"

	"herald/pkg/message"
	"herald/pkg/provider"
)

// minBackOff is the minimum wait after a refusal for load. Meta counts calls over windows of minutes to an hour.
const minBackOff = time.Minute

// Meta documents the codes from 200 to 299 as permission errors. The table has an entry for the first only.
// 10 says that a permission is missing. Their subcodes may concern one recipient only.
const firstPermission, lastPermission, missingPermission = 200, 299, 10

// refusedInARow is how many recipients in a row may be refused with an unknown subcode of a permission error. One of them may
// have blocked the account; five have the account's permission in common.
const refusedInARow = 5

// codes is the table of Meta's error codes for messages.
// https://developers.facebook.com/docs/messenger-platform/error-codes, https://developers.facebook.com/docs/graph-api/guides/error-handling
var codes = provider.NewCodes(
	provider.Row("1", provider.RetryLaterUnless500(), "unknown error, possibly an outage"),
	provider.Row("2", provider.RetryLaterUnless500(), "service temporarily unavailable"),
	provider.Row("3", provider.PauseChannel(message.ChannelRefused), "the app lacks the capability"),
	provider.Row("4", provider.Throttle(minBackOff), "call limit of the app"),
	provider.Row("10", provider.PauseChannel(message.ChannelRefused), "permission not granted or removed"),
	provider.Row("17", provider.Throttle(minBackOff), "call limit of the user"),
	provider.Row("32", provider.Throttle(minBackOff), "call limit of the page"),
	provider.Row("100", provider.Refuse(message.ContentRefused), "invalid parameter"),
	provider.Row("190", provider.PauseChannel(message.ChannelCredentials), "access token expired, revoked or invalid"),
	provider.Row("200", provider.PauseChannel(message.ChannelRefused), "permission error (200 to 299)"),
	provider.Row("341", provider.Throttle(minBackOff), "application limit, temporary"),
	provider.Row("368", provider.Throttle(10*minBackOff), "blocked for a while for a violation of policies"),
	provider.Row("551", provider.Refuse(message.RecipientRefused), "the person is not available"),
	provider.Row("613", provider.Throttle(minBackOff), "rate limit of the API"),
	provider.Row("80002", provider.Throttle(minBackOff), "call limit of the Instagram account"),
	provider.Row("80006", provider.Throttle(minBackOff), "call limit for messages"),
)

// subcodes is the table of Meta's error subcodes. A subcode decides before its code.
var subcodes = provider.NewCodes(
	provider.Row("1357046", provider.MaybeSent, "invalid JSON reply: the message was sent although an error came back"),
	provider.Row("1545041", provider.Refuse(message.RecipientRefused), "the person is not available"),
	provider.Row("1893063", provider.PauseChannel(message.ChannelRefused), "the account is restricted from sending for a while"),
	provider.Row("2018001", provider.Refuse(message.RecipientRefused), "no matching user"),
	provider.Row("2018108", provider.Refuse(message.RecipientRefused), "the person does not receive messages of the account"),
	provider.Row("2018276", provider.PauseChannel(message.ChannelRefused), "the tag or permission for the message is not approved"),
	provider.Row("2018278", provider.Refuse(message.OutsideWindow), "outside the allowed window"),
	provider.Row("2534014", provider.Refuse(message.RecipientRefused), "the requested user cannot be found"),
	provider.Row("2534022", provider.Refuse(message.OutsideWindow), "outside the allowed window"),
	provider.Row("2534029", provider.PauseChannel(message.ChannelRefused), "the account may not send this message"),
	provider.Row("2534041", provider.PauseChannel(message.ChannelRefused), "the account does not allow access to its messages"),
)
