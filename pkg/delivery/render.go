package delivery

import (
	"context"
	"errors"

	"herald/pkg/fault"
	"herald/pkg/message"
	"herald/pkg/render"
)

// renderError says that a message cannot be sent as it renders. Its text has no personal data.
type renderError struct{ error }

// render fills the message's templates. A suspect is rendered alone and on record: if the process ends meanwhile, the next
// process finds the message in SuspectRendering and fails it.
func (d *Deliverer) render(ctx context.Context, w *work) (content render.Rendered, err error) {
	if w.Suspect != message.NotSuspect {
		d.suspects.Lock()
		defer d.suspects.Unlock()
		if err := d.deps.Suspicions.Suspect(ctx, w.ID, message.SuspectRendering); err != nil {
			return content, err
		}
		defer func() {
			err = errors.Join(err, d.deps.Suspicions.Suspect(context.WithoutCancel(ctx), w.ID, message.Suspected))
		}()
	}
	fault.Point(fault.MessageRendering)
	if w.template == nil {
		if w.template, err = d.template(ctx, w); err != nil {
			return content, err
		}
	}
	if err := d.loadTimes(ctx, w); err != nil {
		return content, err
	}
	content, err = w.template.Render(ctx, w.lead)
	switch stopped := ctx.Err(); {
	case err == nil:
		return content, nil
	case stopped != nil:
		return content, stopped // the template is not at fault
	}
	return content, &renderError{err}
}

// loadTimes reads the lead once more if the templates use its times and LoadAndClaim left them out. A lead that was erased
// meanwhile stays without them: Settle applies the rule of erasure.
func (d *Deliverer) loadTimes(ctx context.Context, w *work) error {
	if w.lead == nil || !w.lead.UpdatedAt.IsZero() || !w.template.UsesTimes() {
		return nil
	}
	loaded, err := d.deps.Ledger.Load(ctx, w.ID)
	if err == nil && loaded.Lead != nil {
		w.lead = loaded.Lead
	}
	return err
}

// template returns the parsed templates of a bulk's message, or of a single that a worker delivers.
func (d *Deliverer) template(ctx context.Context, w *work) (*render.Template, error) {
	if w.Content == nil {
		return d.deps.Contents.Template(ctx, w.BulkID)
	}
	t, errs := render.Compile(ctx, w.ChannelType, *w.Content)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t, message.Invalid(errs)
}
