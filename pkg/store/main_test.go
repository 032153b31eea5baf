package store_test

import (
	"testing"

	"herald/pkg/store/storetest"
)

// Helpers that nearly every test calls.
var (
	each  = storetest.Each
	must  = storetest.Must
	newID = storetest.NewID
)

func TestMain(m *testing.M) { storetest.Main(m) }
