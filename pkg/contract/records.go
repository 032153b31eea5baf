package contract

import (
	"encoding/json"
	"reflect"
	"time"

	"herald/pkg/message"
)

// Channel is a sending account. Of its credentials it contains the last four characters only.
type Channel struct {
	ID             string              `json:"id" doc:"Id of the channel. Channels of different types may share an id." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type           message.ChannelType `json:"type" doc:"Channel type." enum:"type" example:"EMAIL"`
	Provider       string              `json:"provider" doc:"Provider that sends the messages." enum:"provider" example:"sendgrid"`
	Name           string              `json:"name" doc:"Name, for display." example:"Acme mail"`
	Sender         string              `json:"sender" doc:"Sender of the messages." example:"news@acme.test"`
	SenderName     *string             `json:"sender_name" doc:"Display name of the sender of emails." example:"Acme"`
	AllowedSenders []string            `json:"allowed_senders" doc:"Patterns of the senders that a request may set in message_data.sender." example:"[\"*@acme.test\"]"`
	Credentials    map[string]string   `json:"credentials" doc:"Credentials; only the last four characters are shown." example:"{\"api_key\":\"****WXyz\"}"`
	Price          float64             `json:"price" doc:"Price of {price_units}." example:"0.001"`
	PriceMedia     *float64            `json:"price_media" doc:"Price of an SMS with media; null: price times segments." example:"0.02"`
	Currency       string              `json:"currency" doc:"Currency of the prices (ISO 4217)." example:"USD"`
	RatePerSecond  *float64            `json:"rate_per_second" doc:"Maximum number of calls to the provider per second, over all processes; null: unlimited." example:"50"`
	Default        bool                `json:"default" doc:"Whether requests that name no channel use this one." example:"true"`
	OnUnknown      string              `json:"on_unknown" doc:"Policy for messages with an unknown outcome: hold keeps them UNKNOWN; resend_once sends them a second time, which may deliver a duplicate." enum:"policy" example:"resend_once"`
	BaseURL        *string             `json:"base_url" doc:"Base URL of the provider's API; null for the default of the provider." example:"https://api.eu.sendgrid.com"`
	Region         *string             `json:"region" doc:"Country (ISO 3166-1 alpha-2) in which national phone numbers of leads are interpreted." example:"US"`
	State          string              `json:"state" doc:"ACTIVE, or PAUSED: nothing is sent." enum:"channel_state" example:"ACTIVE"`
	StateReason    *string             `json:"state_reason" doc:"Reason of PAUSED; null while ACTIVE." example:"Authenticate"`
	CreatedAt      *time.Time          `json:"created_at" doc:"Time of registration." null:"never" example:"2025-01-31T10:30:00Z"`
	UpdatedAt      *time.Time          `json:"updated_at" doc:"Time of the last change." null:"never" example:"2025-01-31T10:30:00Z"`
}

// ChannelFields are the optional fields of a channel, common to NewChannel and ChannelPatch.
type ChannelFields struct {
	SenderName     string   `json:"sender_name,omitempty" doc:"Display name of the sender of emails." max:"256" example:"Acme"`
	AllowedSenders []string `json:"allowed_senders,omitempty" doc:"Patterns of the senders that a request may set in message_data.sender. * matches any characters. Default: none." max:"100" each:"320" example:"[\"*@acme.test\"]"`
	Price          float64  `json:"price,omitempty" doc:"Price of {price_units}: 0, or at least 0.000001." min:"0" max:"100000" example:"0.001"`
	PriceMedia     *float64 `json:"price_media,omitempty" doc:"Price of an SMS with media; 0 is free. Default: price times segments. A price is 0 or at least 0.000001." min:"0" max:"100000" example:"0.02"`
	Currency       string   `json:"currency,omitempty" doc:"Currency of the prices: three letters (ISO 4217). Default: USD." min:"3" max:"3" example:"USD"`
	RatePerSecond  *float64 `json:"rate_per_second,omitempty" doc:"Maximum number of calls to the provider per second, over all processes; null: unlimited." min:"0.01" max:"1000000000000" example:"50"`
	Default        bool     `json:"default,omitempty" doc:"Whether requests that name no channel use this one. At most one channel of each type is the default: true ends it for the other one in the same step. Default: false." example:"false"`
	OnUnknown      string   `json:"on_unknown,omitempty" doc:"Policy for messages with an unknown outcome: hold keeps them UNKNOWN; resend_once sends them a second time, which may deliver a duplicate. Default, by provider: {policies}." enum:"policy" example:"resend_once"`
	BaseURL        string   `json:"base_url,omitempty" doc:"Base URL of the provider's API: https, or http on the same machine; no user, query, fragment or link-local address. A new base_url requires all credentials of the channel in the same request. Default: that of the provider." max:"2048" example:"https://api.eu.sendgrid.com"`
	Region         string   `json:"region,omitempty" doc:"Country in which national phone numbers of leads are interpreted: two letters (ISO 3166-1 alpha-2) of a country with phone numbers." min:"2" max:"2" example:"US"`
	State          string   `json:"state,omitempty" doc:"ACTIVE, or PAUSED: nothing is sent. Setting ACTIVE resumes the channel." enum:"channel_state" example:"ACTIVE"`
}

// NewChannel registers a sending account.
type NewChannel struct {
	ID          string            `json:"id,omitempty" doc:"Id. Default: a new id." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type        string            `json:"type" required:"true" doc:"Channel type, in any letter case." enum:"type" example:"EMAIL"`
	Provider    string            `json:"provider,omitempty" doc:"Provider that sends the messages. Default: the first of the type: {providers}." enum:"provider" example:"sendgrid"`
	Name        string            `json:"name" required:"true" doc:"Name, for display." min:"1" max:"200" example:"Acme mail"`
	Sender      string            `json:"sender" required:"true" doc:"Sender of the messages, by type: {sender_forms}." max:"320" example:"news@acme.test"`
	Credentials map[string]string `json:"credentials" required:"true" doc:"Credentials, by provider: {credentials}. They are stored encrypted; reading shows only their last four characters." each:"4096" example:"{\"api_key\":\"SG.example-of-a-key\"}"`
	ChannelFields
}

// ChannelPatch changes the fields that are present; null empties an optional field. Credentials change one by one; null
// removes one.
type ChannelPatch struct {
	Name        string             `json:"name,omitempty" doc:"Name, for display." min:"1" max:"200" example:"Acme mail"`
	Sender      string             `json:"sender,omitempty" doc:"Sender of the messages." max:"320" example:"news@acme.test"`
	Credentials map[string]*string `json:"credentials,omitempty" doc:"Credentials to change; null removes one. Others keep their value." each:"4096" example:"{\"api_key\":\"SG.another-key\"}"`
	StateReason string             `json:"state_reason,omitempty" doc:"Reason of PAUSED, for display." max:"1000" example:"moved to another account"`
	ChannelFields
}

// LeadFields are the writable fields of a lead, common to NewLead and LeadPatch.
type LeadFields struct {
	FirstName       string          `json:"first_name,omitempty" doc:"First name." max:"1000" example:"Stella"`
	LastName        string          `json:"last_name,omitempty" doc:"Last name." max:"1000" example:"Example"`
	Email           string          `json:"email,omitempty" doc:"Email address. It is stored as given and validated when a message is sent. At most 2000 bytes in UTF-8." max:"1000" example:"stella@example.com"`
	Phone           string          `json:"phone,omitempty" doc:"Phone number. It is stored and shown as given; sends, filters, imports and the keyword use it in E.164 form. At most 2000 bytes in UTF-8." max:"1000" example:"+15005551001"`
	InstagramID     string          `json:"instagram_id,omitempty" doc:"Instagram-scoped user id." max:"1000" example:"1234567890123456"`
	Company         string          `json:"company,omitempty" doc:"Company." max:"1000" example:"Enterprise Customers Ltd"`
	Title           string          `json:"title,omitempty" doc:"Title." max:"1000" example:"CTO"`
	Status          string          `json:"status,omitempty" doc:"Status, any text." max:"1000" example:"qualified"`
	Source          string          `json:"source,omitempty" doc:"Origin of the lead." max:"1000" example:"fair"`
	City            string          `json:"city,omitempty" doc:"City." max:"1000" example:"Oslo"`
	State           string          `json:"state,omitempty" doc:"State or province." max:"1000" example:"Oslo"`
	Country         string          `json:"country,omitempty" doc:"Country." max:"1000" example:"NO"`
	Timezone        string          `json:"timezone,omitempty" doc:"Time zone, any text." max:"1000" example:"Europe/Oslo"`
	Language        string          `json:"language,omitempty" doc:"Language, any text." max:"1000" example:"nb"`
	AssigneeID      string          `json:"assignee_id,omitempty" doc:"Id of the user to which the lead is assigned. At most 2000 bytes in UTF-8." max:"1000" example:"user-uuid-1"`
	Tags            []string        `json:"tags,omitempty" doc:"Tags." max:"200" each:"200" example:"[\"Import 10/05/25\",\"vip\"]"`
	CustomFields    json.RawMessage `json:"custom_fields,omitempty" doc:"Free-form object with names of 1 to 200 characters. Numbers have at most 40 digits before and 40 after the decimal point, and keep all digits; exponents are expanded." bytes:"65536" example:"{\"plan\":\"pro\",\"score\":42}"`
	LastContactedAt *time.Time      `json:"last_contacted_at,omitempty" doc:"Time of the last contact, in the years 1 to 9999 in UTC." example:"2025-01-31T10:30:00Z"`
}

// NewLead creates a lead.
type NewLead struct {
	ID string `json:"id,omitempty" doc:"Id. Default: a new id." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	LeadFields
	CreatedAt *time.Time `json:"created_at,omitempty" doc:"Time of creation, in the years 1 to 9999 in UTC. Default: now." example:"2025-01-31T10:30:00Z"`
	UpdatedAt *time.Time `json:"updated_at,omitempty" doc:"Accepted and ignored, so that a lead can be written as it was read; every write sets it." example:"2025-01-31T10:30:00Z"`
}

// LeadPatch changes the fields that are present; null empties a field. custom_fields are merged (RFC 7396): null removes a custom
// field, and others keep their value.
type LeadPatch struct {
	LeadFields
	AddTags    []string `json:"add_tags,omitempty" doc:"Tags to add to those of the lead. Letter case does not count. Not together with tags." max:"200" each:"200" example:"[\"vip\"]"`
	RemoveTags []string `json:"remove_tags,omitempty" doc:"Tags to remove from those of the lead. Letter case does not count. Not together with tags, and none that add_tags adds." max:"200" each:"200" example:"[\"Import 10/05/25\"]"`
}

// Lead is a contact in the address book. Fields without a value are null.
type Lead struct {
	ID              string         `json:"id" doc:"Id of the lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
	FirstName       *string        `json:"first_name" doc:"First name." example:"Stella"`
	LastName        *string        `json:"last_name" doc:"Last name." example:"Example"`
	Email           *string        `json:"email" doc:"Email address, as given." example:"stella@example.com"`
	Phone           *string        `json:"phone" doc:"Phone number, as given." example:"+15005551001"`
	InstagramID     *string        `json:"instagram_id" doc:"Instagram-scoped user id." example:"1234567890123456"`
	Company         *string        `json:"company" doc:"Company." example:"Enterprise Customers Ltd"`
	Title           *string        `json:"title" doc:"Title." example:"CTO"`
	Status          *string        `json:"status" doc:"Status." example:"qualified"`
	Source          *string        `json:"source" doc:"Origin of the lead." example:"fair"`
	City            *string        `json:"city" doc:"City." example:"Oslo"`
	State           *string        `json:"state" doc:"State or province." example:"Oslo"`
	Country         *string        `json:"country" doc:"Country." example:"NO"`
	Timezone        *string        `json:"timezone" doc:"Time zone, any text." example:"Europe/Oslo"`
	Language        *string        `json:"language" doc:"Language, any text." example:"nb"`
	AssigneeID      *string        `json:"assignee_id" doc:"Id of the user to which the lead is assigned." example:"user-uuid-1"`
	Tags            []string       `json:"tags" doc:"Tags." example:"[\"Import 10/05/25\",\"vip\"]"`
	CustomFields    map[string]any `json:"custom_fields" doc:"Free-form object. Numbers keep all digits, which may exceed the precision of a double." example:"{\"plan\":\"pro\",\"score\":42}"`
	CreatedAt       *time.Time     `json:"created_at" doc:"Time of creation." null:"never" example:"2025-01-31T10:30:00Z"`
	UpdatedAt       *time.Time     `json:"updated_at" doc:"Time of the last change." null:"never" example:"2025-01-31T10:30:00Z"`
	LastContactedAt *time.Time     `json:"last_contacted_at" doc:"Time of the last contact; null if unknown." example:"2025-01-31T10:30:00Z"`
}

// leadText maps the JSON names of the text fields of Lead, those of type *string, to their indexes. It saves one more list
// of the fields of a lead.
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

// SetText sets the text field with a JSON name; an empty value stays null. An unknown name is ignored: tests of package lead
// compare the fields of Lead with those of a lead.
func (l *Lead) SetText(name, value string) {
	if i, ok := leadText[name]; ok && value != "" {
		reflect.ValueOf(l).Elem().Field(i).Set(reflect.ValueOf(&value))
	}
}

// LeadRef replaces Lead in the response to a write by an API key without the scope read, which must not reveal stored values.
type LeadRef struct {
	ID string `json:"id" doc:"Id of the lead." format:"uuid" example:"550e8400-e29b-41d4-a716-446655440001"`
}

// ChannelRef replaces Channel in the response to a write by an API key without the scope read.
type ChannelRef struct {
	ID   string              `json:"id" doc:"Id of the channel." format:"uuid" example:"825b8057-c85f-44a9-9e9f-6e7d7389ecfc"`
	Type message.ChannelType `json:"type" doc:"Channel type." enum:"type" example:"EMAIL"`
}

// SuppressionRef replaces Suppression in the response to a write by an API key without the scope read.
type SuppressionRef struct {
	ID string `json:"id" doc:"Id of the suppression." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
}

// ImportReport is the result of an import.
type ImportReport struct {
	Rows         int             `json:"rows" doc:"Number of rows of the file, without its header and blank lines." example:"10000"`
	Imported     int             `json:"imported" doc:"Number of rows that created a lead." example:"9000"`
	Updated      int             `json:"updated" doc:"Number of rows that changed an existing lead." example:"900"`
	Unchanged    int             `json:"unchanged" doc:"Number of rows that say what is stored already." example:"98"`
	Rejected     int             `json:"rejected" doc:"Number of rows that were rejected." example:"2"`
	Errors       []ImportError   `json:"errors" doc:"The first 100 rejected rows, in the order of the file."`
	WarningCount int             `json:"warning_count" doc:"Number of warnings." example:"1"`
	Warnings     []ImportWarning `json:"warnings" doc:"The first 100 warnings, in the order of the file: cells of imported rows that were left out, or that are stored and cannot be used."`
	Charset      string          `json:"charset" doc:"The encoding in which the file was read." example:"utf-8"`
	Delimiter    string          `json:"delimiter,omitempty" doc:"The character between the cells of a CSV file." example:";"`
	Columns      []ImportColumn  `json:"columns" doc:"What the columns of a CSV file became, in the order of the file."`
	DryRun       bool            `json:"dry_run" doc:"Whether nothing was written." example:"false"`
	Sample       []Lead          `json:"sample,omitempty" doc:"Of a dry run: the first five leads as they would be stored, for a key with the scope read."`
}

// ImportColumn is what a column of an imported file became.
type ImportColumn struct {
	Name  string  `json:"name" doc:"The name of the column in the file." example:"E-mail"`
	Field *string `json:"field" doc:"A field of a lead, custom_fields.NAME, or null for a column that was left out." example:"email"`
}

// ImportWarning is about a cell of a row that was imported.
type ImportWarning struct {
	Line   int    `json:"line" doc:"Line in which the row begins, from 1." example:"17"`
	Column string `json:"column" doc:"The name of the column, or the field of an address." example:"phone"`
	Code   string `json:"code" doc:"Left out: invalid_date ambiguous_date. Stored, but cannot be sent to: invalid_email invalid_phone rounded_phone (a spreadsheet has replaced its last digits by an exponent)." example:"rounded_phone"`
	Msg    string `json:"msg" doc:"Description of the mistake." example:"is a rounded number: format the column as text in the spreadsheet and export it again"`
}

// ImportError is a rejected row of an imported file.
type ImportError struct {
	Line int    `json:"line" doc:"Line in which the row begins, from 1." example:"17"`
	Msg  string `json:"msg" doc:"Description of the mistake." example:"id: must be a UUID"`
}

// Suppression is an address that must not be contacted over one channel type.
type Suppression struct {
	ID           string                `json:"id" doc:"Id of the suppression." format:"uuid" example:"01a20960-62b0-796f-9cfb-5b3a36495aeb"`
	Type         message.ChannelType   `json:"type" doc:"Channel type to which the suppression applies." enum:"type" example:"EMAIL"`
	Address      *string               `json:"address" doc:"Suppressed address; null after the erasure of the lead, while the suppression remains in force." example:"stella@example.com"`
	Reason       message.Reason        `json:"reason" doc:"Reason of the suppression." enum:"suppression_reason" example:"unsubscribed"`
	MessageTypes []message.MessageType `json:"message_types" doc:"Message types that are stopped." enum:"message_type" example:"[\"MARKETING\",\"NOTIFICATION\"]"`
	Note         *string               `json:"note" doc:"Note, for display." example:"asked by phone"`
	CreatedAt    *time.Time            `json:"created_at" doc:"Time of creation." null:"never" example:"2025-01-31T10:30:00Z"`
}

// NewSuppression adds a suppression, or overwrites the one with the same type, address and reason.
type NewSuppression struct {
	Type         string   `json:"type" required:"true" doc:"Channel type to which the suppression applies, in any letter case." enum:"type" example:"EMAIL"`
	Address      string   `json:"address" required:"true" doc:"Address to suppress, valid for the channel type." max:"320" example:"stella@example.com"`
	Reason       string   `json:"reason,omitempty" doc:"Reason of the suppression, in any letter case. Default: suppressed." enum:"suppression_reason" example:"unsubscribed"`
	MessageTypes []string `json:"message_types,omitempty" doc:"Message types that are stopped, in any letter case. Default: all for bounced and suppressed; MARKETING and NOTIFICATION for unsubscribed and complained." enum:"message_type" max:"3" example:"[\"MARKETING\"]"`
	Note         string   `json:"note,omitempty" doc:"Note, for display." max:"1000" example:"asked by phone"`
}

// Health is the response to a probe.
type Health struct {
	Status  string            `json:"status" doc:"ok; degraded: requests are served, some parts are down; unavailable: send no requests." enum:"health" example:"ok"`
	Version string            `json:"version,omitempty" doc:"Version of the program that answers; of /healthz only." example:"v1.2.3"`
	Parts   map[string]string `json:"parts,omitempty" doc:"State of each dependency: ok or down." example:"{\"database\":\"ok\",\"redis\":\"ok\"}"`
}
