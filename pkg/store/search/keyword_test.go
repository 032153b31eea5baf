package search_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"herald/pkg/message"
	"herald/pkg/store/storetest"
)

// The keyword finds names without their accents and phone numbers in any spelling.
func TestCaseKeywordsInTheDatabase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *storetest.Store) {
		lead := func(change func(*message.Lead)) uuid.UUID {
			return storetest.Lead(t, s, func(l *message.Lead) {
				l.Email = "" // the default is a random id, in which a keyword of digits may occur
				change(l)
			})
		}
		jose := lead(func(l *message.Lead) { l.FirstName, l.Phone = "José", "+1 (415) 555-0101" })
		oneil := lead(func(l *message.Lead) { l.LastName, l.Phone = "O’Neil", "(030) 901-820" })
		smith := lead(func(l *message.Lead) { l.FirstName, l.LastName, l.Company = "John", "Smith", "5550101 Straße" })
		for keyword, want := range map[string][]uuid.UUID{
			"jose": {jose}, "JOSÉ": {jose}, "o'neil": {oneil}, "O’Neil": {oneil}, "smith, john": {smith}, `"john smith"`: {smith}, "strasse": {smith}, "straße": {smith},
			"(415) 555-0101": {jose}, "415-555": {jose}, "+14155550101": {jose}, "415 555": {jose}, "030-901": {oneil}, "(030) 9": {oneil}, "555-0101": {jose}, "5550101": {jose, smith}, "josef": nil, "9-9": nil,
		} {
			got := storetest.ResolveAll(t, s, storetest.ParseSettings(t, map[string]any{"search_keyword": keyword}, time.Now()), 10)
			slices.SortFunc(want, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
			if !slices.Equal(got, want) {
				t.Errorf("%q finds %v, want %v", keyword, got, want)
			}
		}
	})
}
