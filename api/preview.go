package api

import (
	"fmt"
	"math"
	"net/http"

	"github.com/labstack/echo/v4"

	"herald/api/request"
	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/contract"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// showPreview shows the data of the samples only to a key with the scope read, and the lead ids to others.
func showPreview(p *bulk.Preview, read bool) contract.Preview {
	r := contract.Preview{
		TotalLeads: p.Total, Reachable: p.Reachable, LeadsNotFound: p.NotFound, Skipped: p.Skipped, EstimatedCost: p.Cost.Amount(),
		EstimatedSeconds: math.Ceil(p.Seconds*10) / 10, AttachmentBytes: p.AttachmentBytes, Warnings: []contract.Warning{}, Samples: []contract.Sample{}, Kind: contract.KindPreview,
	}
	if p.Failed > 0 {
		r.Warnings = append(r.Warnings, contract.Warning{
			Code: contract.WarnRenderFailed, Message: fmt.Sprintf("%d of the %d messages that were rendered would end as FAILED: %v", p.Failed, p.Rendered, p.Failure),
		})
	}
	for _, s := range p.Samples {
		if !read {
			r.Samples = append(r.Samples, contract.Sample{LeadID: s.LeadID.String()})
			continue
		}
		sample := contract.Sample{
			LeadID: s.LeadID.String(), Recipient: s.Recipient, Subject: orNull(s.Subject), Content: orNull(s.Text), HTMLContent: orNull(s.HTML),
		}
		if s.Segments > 0 {
			sample.Segments = &s.Segments
		}
		if s.Err != nil {
			why := s.Err.Error()
			sample.Error = &why
		}
		r.Samples = append(r.Samples, sample)
	}
	return r
}

// explainLead answers why a lead was sent to, was skipped, failed, or is not in the audience. matches_now and criteria
// evaluate the lead as it is now; the audience was fixed when the bulk was planned.
func (s *Server) explainLead(c echo.Context) error {
	id, err := request.PathID(c)
	if err != nil {
		return err
	}
	leadID, ok := wire.ParseUUID(c.Param("lead_id"))
	if !ok {
		return message.InvalidField(message.SlugUUID, "must be a UUID", "path", "lead_id")
	}
	e, err := s.deps.Preview.Explain(c.Request().Context(), id, leadID)
	if err != nil {
		return err
	}
	r := contract.Explanation{LeadID: e.LeadID.String(), InAudience: e.Message != nil, Criteria: showVerdicts(e.Verdicts)}
	if e.Message != nil {
		m := showMessage(e.Message)
		r.Message = &m
	}
	if e.Lead != nil {
		r.MatchesNow = &e.Matches
	}
	return c.JSON(http.StatusOK, r)
}

func showVerdicts(list []audience.Verdict) []contract.Verdict {
	out := make([]contract.Verdict, len(list))
	for i, v := range list {
		out[i] = contract.Verdict{
			Criterion: v.Criterion, ID: v.ID, Logic: v.Logic, Field: v.Field, Operator: string(v.Operator), Value: v.Value, Actual: v.Actual, Note: v.Note, Matched: v.Matched,
			Conditions: showVerdicts(v.Conditions),
		}
	}
	return out
}
