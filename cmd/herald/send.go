package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"herald/pkg/client"
	"herald/pkg/message"
)

type sendCmd struct {
	output
	File        string   `short:"f" help:"File with the whole request as JSON; - for standard input. Without it, the other flags describe a single."`
	To          string   `help:"Address of the recipient."`
	Lead        string   `help:"Id of the lead that receives the message."`
	Type        string   `help:"Channel type: ${types}. Default: derived from the recipient."`
	Channel     string   `help:"Id of the channel. Default: the default channel of the type."`
	Subject     string   `help:"Subject (${subject_types})."`
	Text        string   `help:"Text."`
	HTML        string   `help:"HTML body (${html_content_types})."`
	Media       []string `help:"URLs of media (${media_urls_types})."`
	Image       string   `help:"URL of a picture (${image_url_types})."`
	ReplyTo     string   `help:"Address to which replies go, with or without a name (${reply_to_types})."`
	Header      []string `help:"Additional mail header as 'X-Name: value'; repeat it for more (${headers_types})." sep:"none"`
	Attach      []string `help:"File to attach; repeat it for more (${attachments_types})." type:"existingfile" sep:"none"`
	Timezone    string   `help:"For a bulk in --file: IANA time zone of the filters' days and times, instead of its bulk_settings.timezone."`
	Name        string   `help:"For a bulk in --file: its name, instead of its bulk_settings.name."`
	MessageType string   `help:"transactional, marketing or notification. Default: transactional."`
	Key         string   `help:"Idempotency key: a second run with the same key and message sends nothing. Default: a random key."`
	Watch       bool     `help:"For a bulk: show its progress until it has ended."`
}

// request returns the body of the send: the file, or a single that the flags describe.
func (c *sendCmd) request() ([]byte, error) {
	if c.File != "" {
		body, err := readFile(c.File)
		if err != nil || c.Timezone+c.Name == "" {
			return body, err
		}
		return withSettings(body, map[string]string{"timezone": c.Timezone, "name": c.Name})
	}
	if c.Timezone+c.Name != "" {
		return nil, errNoSettings
	}
	if c.To == "" && c.Lead == "" {
		return nil, fmt.Errorf("%w: --to, --lead or --file is needed", errUsage)
	}
	data := client.MessageData{
		Recipient: c.To, ContactID: c.Lead, Subject: c.Subject, Content: c.Text, HTMLContent: c.HTML, MediaURLs: c.Media, ImageURL: c.Image,
	}
	if err := c.mail(&data); err != nil {
		return nil, err
	}
	return json.Marshal(client.SendRequest{
		SenderType: c.Type, SenderIdentifier: c.Channel, MessageType: message.MessageType(c.MessageType), MessageData: data,
	})
}

// mail adds what the flags say of an email to the content.
func (c *sendCmd) mail(data *client.MessageData) error {
	if c.ReplyTo != "" {
		box, ok := message.ParseMailbox(c.ReplyTo)
		if !ok {
			return fmt.Errorf("%w: --reply-to is not an email address", errUsage)
		}
		data.ReplyTo = &client.ReplyTo{Email: box.Email, Name: box.Name}
	}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("%w: --header %q is not of the form 'X-Name: value'", errUsage, h)
		}
		if data.Headers == nil {
			data.Headers = map[string]string{}
		}
		data.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	for _, path := range c.Attach {
		content, err := os.ReadFile(path) //nolint:gosec // the caller names the file
		if err != nil {
			return fmt.Errorf("%w: --attach: %w", errUsage, err)
		}
		data.Attachments = append(data.Attachments, client.Attachment{Name: filepath.Base(path), Content: content})
	}
	return nil
}

var errNoSettings = fmt.Errorf("%w: --timezone and --name need a --file with bulk_settings", errUsage)

// withSettings sets texts in the bulk_settings of a request, those that are not empty. Values that the command does not know keep
// their form.
func withSettings(body []byte, texts map[string]string) ([]byte, error) {
	var request, settings map[string]json.RawMessage
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, fmt.Errorf("%w: read the request: %w", errUsage, err)
	}
	if err := json.Unmarshal(request["bulk_settings"], &settings); err != nil || settings == nil {
		return nil, errNoSettings
	}
	var err error
	for name, text := range texts {
		if text == "" {
			continue
		}
		if settings[name], err = json.Marshal(text); err != nil {
			return nil, err
		}
	}
	if request["bulk_settings"], err = json.Marshal(settings); err != nil {
		return nil, err
	}
	return json.Marshal(request)
}

// Run sends. The exit code is 1 for a single that was not sent.
func (c *sendCmd) Run(ctx context.Context, api *client.Client) error {
	body, err := c.request()
	if err != nil {
		return err
	}
	var options []client.SendOption
	if c.Key != "" {
		options = append(options, client.UnderKey(c.Key))
	}
	answer, err := api.SendJSON(ctx, body, options...)
	if err != nil {
		return err
	}
	var kind struct {
		BulkID  string `json:"bulk_id"`
		Success *bool  `json:"success"`
	}
	if err := json.Unmarshal(answer, &kind); err != nil {
		return err
	}
	if kind.BulkID != "" {
		return c.bulk(ctx, api, kind.BulkID, answer)
	}
	fmt.Println(indent(answer))
	if kind.Success != nil && !*kind.Success {
		return errors.New("the message was not sent")
	}
	return nil
}

// bulk shows an accepted bulk.
func (c *sendCmd) bulk(ctx context.Context, api *client.Client, id string, answer []byte) error {
	if !c.Watch {
		fmt.Println(indent(answer))
		return nil
	}
	if !c.JSON {
		fmt.Println("bulk", id)
	}
	b, err := watch(ctx, api, id, c.JSON)
	if err != nil || c.JSON {
		return err
	}
	fmt.Print(bulkText(b))
	return nil
}
