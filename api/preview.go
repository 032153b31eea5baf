package api

import (
	"math"
	"net/http"

	"github.com/labstack/echo/v4"

	"herald/pkg/audience"
	"herald/pkg/bulk"
	"herald/pkg/message"
	"herald/pkg/wire"
)

type sampleResponse struct {
	LeadID      string  `json:"lead_id"`
	Recipient   string  `json:"recipient"`
	Subject     *string `json:"subject"`
	Content     *string `json:"content"`
	HTMLContent *string `json:"html_content"`
	Segments    *int    `json:"segments"`
	Error       *string `json:"error"`
}

type previewResponse struct {
	TotalLeads       int64                    `json:"total_leads"`
	Reachable        int64                    `json:"reachable"`
	LeadsNotFound    int64                    `json:"leads_not_found"`
	Skipped          map[message.Reason]int64 `json:"skipped"`
	EstimatedCost    float64                  `json:"estimated_cost"`
	EstimatedSeconds float64                  `json:"estimated_seconds"`
	Samples          []sampleResponse         `json:"samples"`
}

func showPreview(p *bulk.Preview) previewResponse {
	r := previewResponse{
		TotalLeads: p.Total, Reachable: p.Reachable, LeadsNotFound: p.NotFound, Skipped: p.Skipped, EstimatedCost: p.Cost.Amount(),
		EstimatedSeconds: math.Ceil(p.Seconds*10) / 10, Samples: []sampleResponse{},
	}
	for _, s := range p.Samples {
		sample := sampleResponse{
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

type explanationResponse struct {
	LeadID     string             `json:"lead_id"`
	InAudience bool               `json:"in_audience"`
	Message    *messageResponse   `json:"message"`
	Matches    *bool              `json:"matches_now"`
	Criteria   []audience.Verdict `json:"criteria"`
}

// explainLead tells why a lead was sent to, skipped, failed or not in the audience. Matches_now and the criteria judge
// the lead as it is now; the audience was frozen when the bulk was planned.
func (s *Server) explainLead(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return err
	}
	leadID, ok := wire.ParseUUID(c.Param("lead_id"))
	if !ok {
		return message.InvalidField(message.SlugUUID, "must be a UUID", "path", "lead_id")
	}
	e, err := s.Preview.Explain(c.Request().Context(), id, leadID)
	if err != nil {
		return err
	}
	r := explanationResponse{LeadID: e.LeadID.String(), InAudience: e.Message != nil, Criteria: append([]audience.Verdict{}, e.Verdicts...)}
	if e.Message != nil {
		m := showMessage(e.Message)
		r.Message = &m
	}
	if e.Lead != nil {
		r.Matches = &e.Matches
	}
	return c.JSON(http.StatusOK, r)
}
