package render

import (
	"runtime"
	"testing"

	"herald/pkg/message"
)

const (
	cpuBound    = 200 * slowness // milliseconds that compiling, checking and rendering one message may take
	memoryBound = slowness * 64 << 20
)

// Any template is refused, or compiled, checked and rendered within the bounds, for any values of the lead.
func FuzzTemplateGrammar(f *testing.F) {
	for i := range 40 {
		seed := make([]byte, 40)
		for j := range seed {
			seed[j] = byte(i*31 + j*j*7 + j*i)
		}
		f.Add(seed)
	}
	lead := fullLead()
	f.Fuzz(func(t *testing.T, in []byte) {
		source := newGrammar(in, true).template()
		typ := message.SMS
		if len(in)%2 == 1 {
			typ = message.Email
		}
		cost := measure(t, typ, source, lead)
		t.Logf("%d ms, %d KiB", cost.cpu, cost.memory>>10)
		if cost.cpu > cpuBound || cost.memory > memoryBound {
			t.Errorf("%.2000q (%d bytes) takes %d ms of CPU and %d KiB", source, len(source), cost.cpu, cost.memory>>10)
		}
	})
}

type usage struct {
	cpu    int64  // milliseconds, 0 where they cannot be measured
	memory uint64 // bytes allocated
}

// measure compiles, checks and renders a template, three times when that seems dear: the machine may be busy.
func measure(t *testing.T, typ message.ChannelType, source string, lead *message.Lead) usage {
	t.Helper()
	content := message.Content{Text: source}
	if typ == message.Email {
		content = message.Content{Subject: "x", HTML: source}
	}
	var best usage
	for try := range 3 {
		runtime.LockOSThread()
		before, began := allocated(), threadCPU()
		tpl, errs := Compile(t.Context(), typ, content)
		if len(errs) == 0 {
			tpl.Check(t.Context(), nil)
			if r, err := tpl.Render(t.Context(), lead); err == nil && (len(r.Text) > MaxOutput || len(r.HTML) > MaxOutput) {
				t.Errorf("%d and %d bytes came out", len(r.Text), len(r.HTML))
			}
		}
		u := usage{threadCPU() - began, allocated() - before}
		runtime.UnlockOSThread()
		if try == 0 || u.cpu < best.cpu {
			best.cpu = u.cpu
		}
		if try == 0 || u.memory < best.memory {
			best.memory = u.memory
		}
		if best.cpu < cpuBound/2 && best.memory < memoryBound/2 {
			break
		}
	}
	return best
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
