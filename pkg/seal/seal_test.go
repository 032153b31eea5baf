package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsDoNotPrint(t *testing.T) {
	s := NewSecret("hunter2-hunter2")
	type holder struct {
		S Secret
		P *Secret
	}
	var buf bytes.Buffer
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "s", s, "h", holder{s, &s})
	slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "s", s, "h", holder{s, &s})
	b, err := json.Marshal(holder{s, &s})
	if err != nil {
		t.Fatal(err)
	}
	buf.Write(b)
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&buf, f+f+f, s, &s, holder{s, &s})
	}
	if strings.Contains(buf.String(), "hunter2") || strings.Contains(buf.String(), fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("a secret was printed: %s", buf.String())
	}
	if s.Hint() != "****ter2" || NewSecret("short").Hint() != "****" {
		t.Errorf("hints %s %s", s.Hint(), NewSecret("short").Hint())
	}
}

func sealer(t *testing.T, fill byte) *Sealer {
	t.Helper()
	s, err := NewSealer(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealIsBoundToKeyAndPlace(t *testing.T) {
	a, b := sealer(t, 1), sealer(t, 2)
	sealed, err := a.Seal(NewSecret("value"), "here")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Open(sealed, "here"); err != nil || got.Reveal() != "value" {
		t.Errorf("open: %v", err)
	}
	again, _ := a.Seal(NewSecret("value"), "here")
	if again == sealed || strings.Contains(sealed, "value") {
		t.Error("equal values seal equally, or the value is visible")
	}
	altered := sealed[:len(sealed)-1] + string(sealed[len(sealed)-1]^1)
	for name, open := range map[string]func() (Secret, error){
		"elsewhere":   func() (Secret, error) { return a.Open(sealed, "there") },
		"another key": func() (Secret, error) { return b.Open(sealed, "here") },
		"altered":     func() (Secret, error) { return a.Open(altered, "here") },
		"nonsense":    func() (Secret, error) { return a.Open("x", "here") },
		"empty box":   func() (Secret, error) { return a.Open("v1."+a.id+".", "here") },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: opens", name)
		}
	}
}

func TestMasterKeysAreRotated(t *testing.T) {
	before := sealer(t, 1)
	sealed, err := before.Seal(NewSecret("value"), "here")
	if err != nil {
		t.Fatal(err)
	}
	during, err := NewSealer(bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := during.Open(sealed, "here")
	if err != nil || secret.Reveal() != "value" || during.Current(sealed) || !before.Current(sealed) {
		t.Fatalf("the previous key does not open: %v", err)
	}
	again, err := during.Seal(secret, "here")
	if err != nil || !during.Current(again) {
		t.Fatalf("not sealed with the new key: %v", err)
	}
	if got, err := sealer(t, 2).Open(again, "here"); err != nil || got.Reveal() != "value" {
		t.Errorf("the new key alone does not open: %v", err)
	}
	if _, err := before.Open(again, "here"); err == nil {
		t.Error("the old key opens what the new one sealed")
	}
}

// A master key has exactly 32 bytes. Keys of AES-128 and AES-192 are refused.
func TestMasterKey(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 3: false, 16: false, 24: false, 31: false, 32: true, 33: false} {
		text := base64.StdEncoding.EncodeToString(make([]byte, n))
		key, err := ParseMasterKey(" " + text + "\n")
		if (err == nil) != ok || ok && len(key) != n {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := ParseMasterKey("!"); err == nil {
		t.Error("a text that is not base64 is a key")
	}
}

// A value that is sealed with another key is recognised without opening it, and the error names the keys by their ids.
func TestCheckKey(t *testing.T) {
	a, b := sealer(t, 1), sealer(t, 2)
	sealed, err := a.Seal(NewSecret("value"), "here")
	if err != nil {
		t.Fatal(err)
	}
	if a.CheckKey(sealed) != nil || !a.Current(sealed) || b.Current(sealed) {
		t.Error("the key is not recognised")
	}
	if err := b.CheckKey(sealed); err == nil || !strings.Contains(err.Error(), a.id) || !strings.Contains(err.Error(), b.id) {
		t.Errorf("%v", err)
	}
	if _, err := NewSealer(make([]byte, 5)); err == nil {
		t.Error("a key of 5 bytes is accepted")
	}
	if _, err := NewSealer(make([]byte, 32), make([]byte, 5)); err == nil {
		t.Error("a previous key of 5 bytes is accepted")
	}
}
