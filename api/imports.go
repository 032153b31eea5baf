package api

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/dates"
	"herald/pkg/lead"
	"herald/pkg/message"
	"herald/pkg/wire"
)

func (s *Server) importLeads(c echo.Context) error {
	o, err := importOptions(c)
	if err != nil {
		return err
	}
	media, _, _ := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType)) // an invalid header yields "", which is rejected below
	switch media {
	case "text/csv":
		o.Format = lead.CSV
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		o.Format = lead.NDJSON
	case "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "application/vnd.ms-excel", "application/vnd.oasis.opendocument.spreadsheet":
		return message.Errorf(message.CodeMediaType, "the body is a spreadsheet: save the sheet as CSV in UTF-8 and send it as text/csv")
	default:
		return message.Errorf(message.CodeMediaType, "the body must be text/csv or application/x-ndjson")
	}
	limit := s.gate.Limits.Upload.Total
	body := s.gate.Stream(c, contract.RouteImportLeads.BodyLimit())
	answer := http.NewResponseController(c.Response())
	_ = answer.SetWriteDeadline(time.Now().Add(limit + writeTimeout))
	ctx, cancel := context.WithTimeout(c.Request().Context(), limit)
	defer cancel()
	report, err := s.deps.Leads.Import(ctx, o, body)
	_ = answer.SetWriteDeadline(time.Now().Add(writeTimeout))
	switch {
	case body.Err() != nil: // the cause of any other error
		return lead.WithKeptRows(body.Err(), report)
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return lead.WithKeptRows(message.Errorf(message.CodeTooSlow, "the import took longer than %s", limit), report)
	case err != nil:
		return err
	}
	if !request.Allowed(c, access.Read) {
		report.Sample = nil // it shows what is stored
	}
	return c.JSON(http.StatusOK, showReport(report))
}

// importOptions reads the query of an import.
func importOptions(c echo.Context) (lead.ImportOptions, error) {
	errs := &wire.Errors{}
	q := request.NewQuery(c, errs)
	o := lead.ImportOptions{Charset: q.Get("charset"), Zone: q.Zone("timezone"), DryRun: q.Bool("dry_run"), Separator: q.Get("tag_separator")}
	if v := q.Get("delimiter"); v != "" {
		if o.Delimiter, _ = utf8.DecodeRuneInString(v); utf8.RuneCountInString(v) != 1 {
			errs.Add(message.SlugValue, "must be one character", "query", "delimiter")
		}
	}
	if utf8.RuneCountInString(o.Separator) > maxSeparator {
		errs.Add(message.SlugTooLong, "must have at most 10 characters", "query", "tag_separator")
	}
	if v := q.Get("dates"); v != "" {
		var ok bool
		if o.Dates, ok = dates.ParseOrder(v); !ok {
			errs.Add(message.SlugEnum, "must be dmy or mdy", "query", "dates")
		}
	}
	o.Columns = chosenColumns(q.Get("columns"), errs)
	return o, q.Close()
}

const maxSeparator = 10 // characters between two tags

// chosenColumns reads the parameter columns: a JSON object of texts and nulls.
func chosenColumns(v string, errs *wire.Errors) map[string]string {
	if v == "" {
		return nil
	}
	decoded, err := wire.Decode([]byte(v))
	object, ok := decoded.(map[string]any)
	if err != nil || !ok {
		errs.Add(message.SlugObject, "must be a JSON object with the names of columns and what they become", "query", "columns")
		return nil
	}
	chosen := make(map[string]string, len(object))
	for name, field := range object {
		text, ok := field.(string)
		if !ok && field != nil || ok && text == "" {
			errs.Add(message.SlugString, "must be the name of a field, custom_fields.NAME, or null", "query", "columns", name)
		}
		chosen[name] = text
	}
	return chosen
}

func showReport(r lead.Report) contract.ImportReport {
	out := contract.ImportReport{
		Rows: r.Rows, Imported: r.Imported, Updated: r.Updated, Unchanged: r.Unchanged, Rejected: r.Rejected, WarningCount: r.Warned,
		Errors: make([]contract.ImportError, len(r.Errors)), Warnings: make([]contract.ImportWarning, len(r.Warnings)),
		Charset: r.Charset, Delimiter: r.Delimiter, Columns: make([]contract.ImportColumn, len(r.Columns)), DryRun: r.DryRun,
	}
	for i, e := range r.Errors {
		out.Errors[i] = contract.ImportError(e)
	}
	for i, w := range r.Warnings {
		out.Warnings[i] = contract.ImportWarning(w)
	}
	for i, c := range r.Columns {
		out.Columns[i] = contract.ImportColumn{Name: c.Name, Field: orNull(c.Field)}
	}
	for i := range r.Sample {
		out.Sample = append(out.Sample, showLead(&r.Sample[i]))
	}
	return out
}
