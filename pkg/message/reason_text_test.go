package message

import "testing"

// Every reason is explained, and says what to do.
func TestIntegrationReasonsAreExplained(t *testing.T) {
	for _, r := range Reasons() {
		if text := r.Explain(); text.Meaning == "" || text.Action == "" {
			t.Errorf("%s: %+v", r, text)
		}
	}
	if len(reasonTexts) != len(Reasons()) || NoReason.Explain() != (ReasonText{}) {
		t.Errorf("%d of %d reasons are explained", len(reasonTexts), len(Reasons()))
	}
	if !Unreachable.Explain().Retried || RecipientRefused.Explain().Retried {
		t.Error("the reasons after several attempts")
	}
}
