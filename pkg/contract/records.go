package contract

import (
	"encoding/json"
	"reflect"
	"time"

	"herald/pkg/message"
)

// Channel is a sending account as it is shown: of its credentials the last four characters.
type Channel struct {
	ID             string              `json:"id" doc:"The channel's id; one id may be registered once for each type." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type           message.ChannelType `json:"type" doc:"What it sends." enum:"type" example:"EMAIL"`
	Provider       string              `json:"provider" doc:"Who sends it." enum:"provider" example:"sendgrid"`
	Name           string              `json:"name" doc:"For people." example:"Acme mail"`
	Sender         string              `json:"sender" doc:"Who its messages come from." example:"news@acme.test"`
	SenderName     *string             `json:"sender_name" doc:"The name beside an email's sender." example:"Acme"`
	AllowedSenders []string            `json:"allowed_senders" doc:"Patterns of the senders that a message may name for itself." example:"[\"*@acme.test\"]"`
	Credentials    map[string]string   `json:"credentials" doc:"The last four characters of each." example:"{\"api_key\":\"****WXyz\"}"`
	Price          float64             `json:"price" doc:"Of {price_units}." example:"0.001"`
	PriceMedia     float64             `json:"price_media" doc:"Of an SMS with media." example:"0"`
	Currency       string              `json:"currency" doc:"Of the prices." example:"USD"`
	RatePerSecond  *float64            `json:"rate_per_second" doc:"The most calls a second, over all processes; null: no limit." example:"50"`
	Default        bool                `json:"default" doc:"Whether it is used for its type when a request names no channel." example:"true"`
	OnUnknown      string              `json:"on_unknown" doc:"What becomes of a message whose outcome nobody knows: hold leaves it UNKNOWN, resend_once sends it a second time after a while." enum:"policy" example:"resend_once"`
	BaseURL        *string             `json:"base_url" doc:"Of the provider's API, where that is not the usual." example:"https://api.eu.sendgrid.com"`
	Region         *string             `json:"region" doc:"The country whose national phone numbers leads may have." example:"US"`
	State          string              `json:"state" doc:"Whether it sends." enum:"channel_state" example:"ACTIVE"`
	StateReason    *string             `json:"state_reason" doc:"Why it is PAUSED." example:"Authenticate"`
	CreatedAt      *time.Time          `json:"created_at" doc:"When it was registered." example:"2025-01-31T10:30:00Z"`
	UpdatedAt      *time.Time          `json:"updated_at" doc:"When it changed last." example:"2025-01-31T10:30:00Z"`
}

// ChannelFields are the fields of a channel that can be changed.
type ChannelFields struct {
	SenderName     string   `json:"sender_name,omitempty" doc:"The name beside an email's sender." max:"256" example:"Acme"`
	AllowedSenders []string `json:"allowed_senders,omitempty" doc:"Patterns of the senders that a message may name for itself; * stands for any characters." max:"100" each:"320" example:"[\"*@acme.test\"]"`
	Price          float64  `json:"price,omitempty" doc:"Of {price_units}." min:"0" max:"100000" example:"0.001"`
	PriceMedia     float64  `json:"price_media,omitempty" doc:"Of an SMS with media; price times segments without it." min:"0" max:"100000" example:"0.02"`
	Currency       string   `json:"currency,omitempty" doc:"Of the prices: three letters; USD when a new channel does not say." min:"3" max:"3" example:"USD"`
	RatePerSecond  *float64 `json:"rate_per_second,omitempty" doc:"The most calls a second, over all processes; null: no limit." min:"0.01" max:"1000000000000" example:"50"`
	Default        bool     `json:"default,omitempty" doc:"Whether it is used for its type when a request names no channel; one of each type may be." example:"false"`
	OnUnknown      string   `json:"on_unknown,omitempty" doc:"What becomes of a message whose outcome nobody knows: hold leaves it UNKNOWN, resend_once sends it a second time after a while. When absent, by provider: {policies}." enum:"policy" example:"resend_once"`
	BaseURL        string   `json:"base_url,omitempty" doc:"Of the provider's API, where that is not the usual: https, or http on this machine, without user, query and fragment, and to no link-local address. A new one takes all credentials of the channel in the same request." max:"2048" example:"https://api.eu.sendgrid.com"`
	Region         string   `json:"region,omitempty" doc:"The country whose national phone numbers leads may have: two letters." min:"2" max:"2" example:"US"`
	State          string   `json:"state,omitempty" doc:"Whether it sends. ACTIVE resumes one that was paused." enum:"channel_state" example:"ACTIVE"`
}

// NewChannel registers a sending account.
type NewChannel struct {
	ID          string            `json:"id,omitempty" doc:"Its id; made when absent." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type        string            `json:"type" required:"true" doc:"What it sends, in any letter case." enum:"type" example:"EMAIL"`
	Provider    string            `json:"provider,omitempty" doc:"The provider that sends its messages. When absent, the first of the type: {providers}." enum:"provider" example:"sendgrid"`
	Name        string            `json:"name" required:"true" doc:"For people." min:"1" max:"200" example:"Acme mail"`
	Sender      string            `json:"sender" required:"true" doc:"The sender of its messages, by type: {sender_forms}." max:"320" example:"news@acme.test"`
	Credentials map[string]string `json:"credentials" required:"true" doc:"By provider: {credentials}. They are sealed and never shown again." each:"4096" example:"{\"api_key\":\"SG.example-of-a-key\"}"`
	ChannelFields
}

// ChannelPatch changes what it names; null empties an optional field. Credentials are changed one by one, null takes one
// away.
type ChannelPatch struct {
	Name        string             `json:"name,omitempty" doc:"For people." min:"1" max:"200" example:"Acme mail"`
	Sender      string             `json:"sender,omitempty" doc:"Who its messages come from." max:"320" example:"news@acme.test"`
	Credentials map[string]*string `json:"credentials,omitempty" doc:"Those to change." each:"4096" example:"{\"api_key\":\"SG.another-key\"}"`
	StateReason string             `json:"state_reason,omitempty" doc:"Why it is paused, for people." max:"1000" example:"moved to another account"`
	ChannelFields
}

// LeadFields are the fields of a lead that its owner writes.
type LeadFields struct {
	FirstName       string          `json:"first_name,omitempty" doc:"First name." max:"1000" example:"Stella"`
	LastName        string          `json:"last_name,omitempty" doc:"Last name." max:"1000" example:"Example"`
	Email           string          `json:"email,omitempty" doc:"Email address, as it is known; it is judged when it is sent to. At most 2000 bytes in UTF-8." max:"1000" example:"stella@example.com"`
	Phone           string          `json:"phone,omitempty" doc:"Phone number, as it is known; it is brought to E.164 form when it is sent to. At most 2000 bytes in UTF-8." max:"1000" example:"+15005551001"`
	InstagramID     string          `json:"instagram_id,omitempty" doc:"Instagram-scoped id." max:"1000" example:"1234567890123456"`
	Company         string          `json:"company,omitempty" doc:"Company." max:"1000" example:"Enterprise Customers Ltd"`
	Title           string          `json:"title,omitempty" doc:"Title." max:"1000" example:"CTO"`
	Status          string          `json:"status,omitempty" doc:"Status, in your own words." max:"1000" example:"qualified"`
	Source          string          `json:"source,omitempty" doc:"Where the lead came from." max:"1000" example:"fair"`
	City            string          `json:"city,omitempty" doc:"City." max:"1000" example:"Oslo"`
	State           string          `json:"state,omitempty" doc:"State." max:"1000" example:"Oslo"`
	Country         string          `json:"country,omitempty" doc:"Country." max:"1000" example:"NO"`
	Timezone        string          `json:"timezone,omitempty" doc:"Time zone." max:"1000" example:"Europe/Oslo"`
	Language        string          `json:"language,omitempty" doc:"Language." max:"1000" example:"nb"`
	AssigneeID      string          `json:"assignee_id,omitempty" doc:"The user that the lead is assigned to. At most 2000 bytes in UTF-8." max:"1000" example:"user-uuid-1"`
	Tags            []string        `json:"tags,omitempty" doc:"Tags." max:"200" each:"200" example:"[\"Import 10/05/25\",\"vip\"]"`
	CustomFields    json.RawMessage `json:"custom_fields,omitempty" doc:"Anything else, under names of 1 to 200 characters. Numbers have at most 40 digits before and 40 after the decimal point and keep them all; an exponent is written out." bytes:"65536" example:"{\"plan\":\"pro\",\"score\":42}"`
	LastContactedAt *time.Time      `json:"last_contacted_at,omitempty" doc:"When the lead was contacted last, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
}

// NewLead is a person to be stored.
type NewLead struct {
	ID string `json:"id,omitempty" doc:"Its id; made when absent." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	LeadFields
	CreatedAt *time.Time `json:"created_at,omitempty" doc:"When the lead came to be, in the years 1 to 9999 in UTC; now when absent." example:"2025-01-31T10:30:00Z"`
	UpdatedAt *time.Time `json:"updated_at,omitempty" doc:"May be given, so that what was read can be written, and is set anew." example:"2025-01-31T10:30:00Z"`
}

// LeadPatch changes what it names; null empties a field.
type LeadPatch struct{ LeadFields }

// Lead is a person of the CRM.
type Lead struct {
	ID              string         `json:"id" doc:"The lead's id." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	FirstName       *string        `json:"first_name" doc:"First name." example:"Stella"`
	LastName        *string        `json:"last_name" doc:"Last name." example:"Example"`
	Email           *string        `json:"email" doc:"Email address, as it was given." example:"stella@example.com"`
	Phone           *string        `json:"phone" doc:"Phone number, as it was given." example:"+15005551001"`
	InstagramID     *string        `json:"instagram_id" doc:"Instagram-scoped id." example:"1234567890123456"`
	Company         *string        `json:"company" doc:"Company." example:"Enterprise Customers Ltd"`
	Title           *string        `json:"title" doc:"Title." example:"CTO"`
	Status          *string        `json:"status" doc:"Status." example:"qualified"`
	Source          *string        `json:"source" doc:"Where the lead came from." example:"fair"`
	City            *string        `json:"city" doc:"City." example:"Oslo"`
	State           *string        `json:"state" doc:"State." example:"Oslo"`
	Country         *string        `json:"country" doc:"Country." example:"NO"`
	Timezone        *string        `json:"timezone" doc:"Time zone." example:"Europe/Oslo"`
	Language        *string        `json:"language" doc:"Language." example:"nb"`
	AssigneeID      *string        `json:"assignee_id" doc:"The user that the lead is assigned to." example:"user-uuid-1"`
	Tags            []string       `json:"tags" doc:"Tags." example:"[\"Import 10/05/25\",\"vip\"]"`
	CustomFields    map[string]any `json:"custom_fields" doc:"Anything else. Numbers have all their digits, which may be more than a double holds." example:"{\"plan\":\"pro\",\"score\":42}"`
	CreatedAt       *time.Time     `json:"created_at" doc:"When the lead came to be." example:"2025-01-31T10:30:00Z"`
	UpdatedAt       *time.Time     `json:"updated_at" doc:"When it changed last." example:"2025-01-31T10:30:00Z"`
	LastContactedAt *time.Time     `json:"last_contacted_at" doc:"When the lead was contacted last." example:"2025-01-31T10:30:00Z"`
}

// leadText finds the text fields of Lead, those of type *string, by their JSON names.
var leadText = func() map[string]int {
	index := map[string]int{}
	typ := reflect.TypeFor[Lead]()
	for i := range typ.NumField() {
		if f := typ.Field(i); f.Type == reflect.TypeFor[*string]() {
			index[f.Tag.Get("json")] = i
		}
	}
	return index
}()

// SetText sets the text field with a JSON name; an empty value stays null. A name that Lead does not have is ignored: the
// tests of package lead hold Lead to the fields that a lead has.
func (l *Lead) SetText(name, value string) {
	if i, ok := leadText[name]; ok && value != "" {
		reflect.ValueOf(l).Elem().Field(i).Set(reflect.ValueOf(&value))
	}
}

// LeadRef is what a key without the scope read is told of a lead that it wrote.
type LeadRef struct {
	ID string `json:"id" doc:"The lead's id." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
}

// ChannelRef is what a key without the scope read is told of a channel that it wrote.
type ChannelRef struct {
	ID   string              `json:"id" doc:"The channel's id." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type message.ChannelType `json:"type" doc:"What it sends." enum:"type" example:"EMAIL"`
}

// SuppressionRef is what a key without the scope read is told of a suppression that it wrote.
type SuppressionRef struct {
	ID string `json:"id" doc:"The suppression's id." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
}

// ImportReport is what became of an imported file.
type ImportReport struct {
	Imported int           `json:"imported" doc:"New leads." example:"9998"`
	Updated  int           `json:"updated" doc:"Leads that were there and were changed." example:"0"`
	Rejected int           `json:"rejected" doc:"Rows that are no lead." example:"2"`
	Errors   []ImportError `json:"errors" doc:"What is wrong with the first of them."`
}

// ImportError is what is wrong with one row of a file.
type ImportError struct {
	Line int    `json:"line" doc:"Where the row begins, from 1." example:"17"`
	Msg  string `json:"msg" doc:"What is wrong." example:"id: must be a UUID"`
}

// Suppression is an address that must not be contacted, and the reason.
type Suppression struct {
	ID           string                `json:"id" doc:"The suppression's id." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Type         message.ChannelType   `json:"type" doc:"Over which type of channel." enum:"type" example:"EMAIL"`
	Address      *string               `json:"address" doc:"Whom; null once the person was erased, while it stays in force." example:"stella@example.com"`
	Reason       message.Reason        `json:"reason" doc:"Why." enum:"suppression_reason" example:"unsubscribed"`
	MessageTypes []message.MessageType `json:"message_types" doc:"What is stopped." enum:"message_type" example:"[\"MARKETING\",\"NOTIFICATION\"]"`
	Note         *string               `json:"note" doc:"For people." example:"asked by phone"`
	CreatedAt    *time.Time            `json:"created_at" doc:"Since when." example:"2025-01-31T10:30:00Z"`
}

// NewSuppression puts an address on the list, or over the entry with the same type, address and reason.
type NewSuppression struct {
	Type         string   `json:"type" required:"true" doc:"Over which type of channel, in any letter case." enum:"type" example:"EMAIL"`
	Address      string   `json:"address" required:"true" doc:"Whom." max:"320" example:"stella@example.com"`
	Reason       string   `json:"reason,omitempty" doc:"Why, in any letter case; suppressed when absent." enum:"suppression_reason" example:"unsubscribed"`
	MessageTypes []string `json:"message_types,omitempty" doc:"What is stopped, in any letter case; when absent, everything for bounced and suppressed, MARKETING and NOTIFICATION for unsubscribed and complained." enum:"message_type" max:"3" example:"[\"MARKETING\"]"`
	Note         string   `json:"note,omitempty" doc:"For people." max:"1000" example:"asked by phone"`
}

// Health is the answer to a probe.
type Health struct {
	Status string            `json:"status" doc:"ok; degraded: it works, with less; unavailable: send nothing here." enum:"health" example:"ok"`
	Parts  map[string]string `json:"parts,omitempty" doc:"What was looked at: ok or down." example:"{\"database\":\"ok\",\"redis\":\"ok\"}"`
}
