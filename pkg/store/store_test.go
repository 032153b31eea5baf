package store_test

import (
	"context"
	"testing"

	"herald/pkg/store"
)

func TestOpenRefusesStrangeURLs(t *testing.T) {
	for _, u := range []string{"", "mysql://x", "/tmp/x.db"} {
		if _, err := store.Open(context.Background(), u, store.Options{}); err == nil {
			t.Errorf("%q opens", u)
		}
	}
}
