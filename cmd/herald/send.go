package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"herald/pkg/client"
	"herald/pkg/message"
)

type sendCmd struct {
	output
	File        string   `short:"f" help:"A file with the whole request as JSON, - for standard input. Without it, a single is made of the other flags."`
	To          string   `help:"The recipient."`
	Lead        string   `help:"The id of the lead that it goes to."`
	Type        string   `help:"${types}; by the recipient without it."`
	Channel     string   `help:"The channel's id; the default one without it."`
	Subject     string   `help:"The subject (${subject_types})."`
	Text        string   `help:"The text."`
	HTML        string   `help:"The HTML (${html_content_types})."`
	Media       []string `help:"Addresses of media (${media_urls_types})."`
	Image       string   `help:"The address of a picture (${image_url_types})."`
	MessageType string   `help:"transactional, marketing or notification."`
	Key         string   `help:"An Idempotency-Key of your own, so that running the command again sends nothing twice."`
	Watch       bool     `help:"Of a bulk: watch it until it is over."`
}

func (c *sendCmd) request() ([]byte, error) {
	if c.File != "" {
		return readFile(c.File)
	}
	if c.To == "" && c.Lead == "" {
		return nil, fmt.Errorf("%w: --to, --lead or --file is needed", errUsage)
	}
	return json.Marshal(client.SendRequest{
		SenderType: c.Type, SenderIdentifier: c.Channel, MessageType: message.MessageType(c.MessageType), MessageData: client.MessageData{
			Recipient: c.To, ContactID: c.Lead, Subject: c.Subject, Content: c.Text, HTMLContent: c.HTML, MediaURLs: c.Media, ImageURL: c.Image,
		},
	})
}

// Run sends. A single that was not sent makes the exit code 1.
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

// bulk shows a bulk that was ordered.
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
