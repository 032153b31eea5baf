package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"herald/pkg/client"
	"herald/pkg/message"
)

type channelsCmd struct {
	List   channelsListCmd   `cmd:"" default:"1" help:"List the channels."`
	Create channelsCreateCmd `cmd:"" help:"Register a channel."`
	Pause  channelsPauseCmd  `cmd:"" help:"Pause a channel: nothing is sent over it."`
	Resume channelsResumeCmd `cmd:"" help:"Resume a paused channel."`
	Delete channelsDeleteCmd `cmd:"" help:"Delete a channel. It fails while bulks or messages wait for the channel."`
}

type channelsListCmd struct{ output }

// Run lists the channels.
func (c *channelsListCmd) Run(ctx context.Context, api *client.Client) error {
	return listed(c.output, api.Channels(ctx), 0, "ID\tTYPE\tNAME\tSENDER\tDEFAULT\tSTATE", func(ch *client.Channel) []any {
		state := ch.State
		if ch.StateReason != nil {
			state += ": " + *ch.StateReason
		}
		return []any{ch.ID, ch.Type, ch.Name, ch.Sender, ch.Default, state}
	})
}

type channelsCreateCmd struct {
	File string `arg:"" default:"-" help:"File with the channel as JSON, in the form of POST /api/channels; - for standard input, which keeps credentials out of files."`
}

// Run registers a channel.
func (c *channelsCreateCmd) Run(ctx context.Context, api *client.Client) error {
	b, err := readFile(c.File)
	if err != nil {
		return err
	}
	var ch client.NewChannel
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ch); err != nil {
		return fmt.Errorf("%w: read the channel: %w", errUsage, err)
	}
	made, err := api.CreateChannel(ctx, ch)
	if err != nil {
		return err
	}
	return printJSON(made)
}

// readFile reads a file, or standard input for "-".
func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name) //nolint:gosec // the file that the user names
}

// oneChannel contains the flags of commands that concern one channel. Channels of different types may share an id.
type oneChannel struct {
	output
	ID   string `arg:"" help:"Id of the channel."`
	Type string `arg:"" help:"Type of the channel: ${types}."`
}

func (c *oneChannel) typ() (message.ChannelType, error) {
	t, ok := message.ParseChannelType(c.Type)
	if !ok {
		return "", fmt.Errorf("%w: the type must be %s", errUsage, strings.ToLower(message.ChannelTypeList()))
	}
	return t, nil
}

func (c *oneChannel) change(ctx context.Context, api *client.Client, p client.Patch) error {
	t, err := c.typ()
	if err != nil {
		return err
	}
	ch, err := api.ChangeChannel(ctx, c.ID, t, p)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(ch)
	}
	fmt.Printf("channel %s of type %s is %s\n", ch.ID, ch.Type, ch.State)
	return nil
}

type channelsPauseCmd struct {
	oneChannel
	Reason string `help:"Reason, for display."`
}

// Run pauses a channel.
func (c *channelsPauseCmd) Run(ctx context.Context, api *client.Client) error {
	return c.change(ctx, api, client.Patch{"state": "PAUSED", "state_reason": c.Reason})
}

type channelsResumeCmd struct{ oneChannel }

// Run resumes a channel.
func (c *channelsResumeCmd) Run(ctx context.Context, api *client.Client) error {
	return c.change(ctx, api, client.Patch{"state": "ACTIVE"})
}

type channelsDeleteCmd struct{ oneChannel }

// Run deletes a channel.
func (c *channelsDeleteCmd) Run(ctx context.Context, api *client.Client) error {
	t, err := c.typ()
	if err != nil {
		return err
	}
	if err := api.DeleteChannel(ctx, c.ID, t); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(map[string]string{"deleted": c.ID})
	}
	fmt.Println("deleted", c.ID)
	return nil
}
