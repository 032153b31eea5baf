package message

// ReasonText explains a reason to the people who operate or use Herald.
type ReasonText struct {
	Meaning string
	Retried bool   // Herald made further attempts before the message got the reason
	Action  string // what to do
}

// reasonTexts explain every reason.
var reasonTexts = map[Reason]ReasonText{
	NoRecipient:        {Meaning: "the lead has no address of the channel type", Action: "add the address to the lead"},
	InvalidRecipient:   {Meaning: "the lead's address is not one of the channel type, or a national number without a region", Action: "correct the address, or set the region of the channel"},
	DuplicateRecipient: {Meaning: "another lead of the bulk has the same address and gets the message", Action: "nothing; allow_duplicate_recipients sends to each lead"},
	Unsubscribed:       {Meaning: "the recipient unsubscribed", Action: "respect it: the suppression is lifted only at the recipient's request"},
	SuppressedBounce:   {Meaning: "an earlier message to the address bounced", Action: "correct the address of the lead"},
	Complained:         {Meaning: "the recipient reported an earlier message as spam", Action: "respect it: further messages harm the sender's reputation"},
	ManuallySuppressed: {Meaning: "a request suppressed the address", Action: "delete the suppression if it is a mistake"},

	WasCancelled:   {Meaning: "the bulk was cancelled before the message was sent", Action: "send again if it was a mistake"},
	UnknownOutcome: {Meaning: "the call to the provider was made, and no usable answer arrived: the message may have been sent", Action: "look it up at the provider before sending again; the channel's on_unknown decides about a second send"},

	RecipientRefused:    {Meaning: "the provider refuses the address", Action: "correct the address of the lead"},
	ConsentRefused:      {Meaning: "the provider reports that the recipient opted out", Action: "respect it; the provider lifts it at the recipient's request"},
	ContentRefused:      {Meaning: "the provider refuses the content", Action: "change the content; error.message has the provider's words"},
	SenderRefused:       {Meaning: "the provider refuses the sender that the message names", Action: "use a sender that is verified with the provider"},
	OutsideWindow:       {Meaning: "the recipient's last Instagram message is too old for an answer", Action: "wait until the recipient writes, or use another channel"},
	ProviderRefused:     {Meaning: "the provider refuses the message with a code that Herald does not know", Action: "look up error.code in the provider's documentation"},
	RenderInvalid:       {Meaning: "the template cannot be rendered for the lead, or its result is empty or too long", Action: "correct the template or the lead, for example with the filter default; a dry run warns of it"},
	ChannelCredentials:  {Meaning: "the provider refuses the channel's credentials", Action: "replace the credentials of the channel and resume it"},
	ChannelRefused:      {Meaning: "the provider refuses the channel's account or sender", Action: "correct the account at the provider and resume the channel"},
	Unreachable:         {Meaning: "no attempt reached the provider", Retried: true, Action: "check network and base_url, then send again: nothing was sent"},
	ProviderUnavailable: {Meaning: "the provider refused every attempt for load", Retried: true, Action: "send again later, or lower rate_per_second of the channel: nothing was sent"},
	Poison:              {Meaning: "the attempts ended again and again without an outcome", Retried: true, Action: "report it with the log of the worker"},
	RenderCrashed:       {Meaning: "rendering the message ended the process twice", Retried: true, Action: "simplify the template, and report it"},
	ChannelDeleted:      {Meaning: "the channel was deleted before the message was sent", Action: "send again over another channel"},

	Erased: {Meaning: "the lead was erased before the message was sent", Action: "nothing"},
}

// Explain returns what a reason means, the zero value for one that is not in the list.
func (r Reason) Explain() ReasonText { return reasonTexts[r] }
