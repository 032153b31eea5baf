package render

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/osteele/liquid/values"
)

// Bounds of one rendering, all fields of a message together. A step is about a microsecond of work: a tag, an object or a
// loop round costs one, and so does a kibibyte that a filter reads or writes.
const (
	maxSteps    = 50_000
	maxHeld     = 4 << 20 // bytes that variables may hold at one time
	maxMade     = 8 << 20 // bytes that filters and captures may make
	maxElements = 10_000  // of an array that a filter makes
	elementSize = 32      // bytes that an element counts beside its content
	writeSize   = 64      // bytes that one write counts beside its content
	clockSteps  = 64      // steps between two looks at the clock
)

var (
	errTooLong  = fmt.Errorf("renders to over %d bytes", MaxOutput)
	errElements = fmt.Errorf("makes an array of over %d elements", maxElements)
	errWork     = errors.New("takes too many steps to render")
	errTime     = errors.New("takes too long to render")
	errMemory   = fmt.Errorf("keeps over %d bytes in variables", maxHeld)
	errMade     = fmt.Errorf("makes over %d bytes of text on the way", maxMade)
	errGone     = errors.New("the request was cancelled")
)

// budget counts the work of one rendering and stops it at a bound. Each part charges the budget before it works.
type budget struct {
	steps int
	next  int // the step at which the clock is read
	until time.Time
	done  <-chan struct{} // closed when the caller's context ends
	err   error           // the bound that was exceeded; it stays

	vars map[string]any // the library's copy of the bindings
	held map[string]int // sizes of variables
	sum  int            // of held
	made int
}

func (b *budget) charge(n int) error {
	if b.steps += n; b.steps < b.next {
		return nil
	}
	return b.look()
}

func (b *budget) look() error {
	switch {
	case b.err != nil:
	case b.steps > maxSteps:
		b.err = errWork
	case time.Now().After(b.until):
		b.err = errTime
	default:
		select {
		case <-b.done:
			b.err = errGone
		default:
			b.next = min(b.steps+clockSteps, maxSteps+1)
			return nil
		}
	}
	b.next = 0
	return b.err
}

func (b *budget) fail(err error) error {
	if b.err == nil {
		b.err, b.next = err, 0
	}
	return b.err
}

// make charges for new text or a new array.
func (b *budget) make(size int) error {
	if b.made += size; b.made > maxMade {
		return b.fail(errMade)
	}
	return b.charge(size >> 10)
}

// hold replaces the size of a variable.
func (b *budget) hold(name string, size int) error {
	if b.held == nil {
		b.held = map[string]int{}
	}
	b.sum += size - b.held[name]
	b.held[name] = size
	if b.sum > maxHeld {
		return b.fail(errMemory)
	}
	return nil
}

// size returns the bytes that printing or comparing a value reads. A text that an array contains several times counts
// each time. Counting stops beyond maxSize, for which no budget pays.
func size(v any) int { return grow(0, v) }

const maxSize = maxSteps << 10

func grow(n int, v any) int {
	switch v := v.(type) {
	case nil:
		return n
	case string:
		return n + len(v)
	case []any:
		for _, e := range v {
			if n = grow(n+elementSize, e); n > maxSize {
				break
			}
		}
		return n
	case map[string]any:
		for k, e := range v {
			if n = grow(n+elementSize+len(k), e); n > maxSize {
				break
			}
		}
		return n
	case values.SafeValue:
		return grow(n, v.Value)
	case bool, int, int64, float64:
		return n + 8
	}
	switch rv := reflect.ValueOf(v); rv.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range rv.Len() {
			if n = grow(n+elementSize, rv.Index(i).Interface()); n > maxSize {
				break
			}
		}
		return n
	case reflect.Map:
		return n + rv.Len()*2*elementSize
	case reflect.String:
		return n + rv.Len()
	}
	return n + elementSize
}

// limitedWriter takes one field's or one capture's text.
type limitedWriter struct {
	buf  bytes.Buffer
	b    *budget
	owed int // bytes that are not charged yet
}

var _ io.Writer = (*limitedWriter)(nil)

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.buf.Len()+len(p) > MaxOutput {
		return 0, w.b.fail(errTooLong)
	}
	if w.owed += len(p) + writeSize; w.owed >= 1<<10 {
		if err := w.b.charge(w.owed >> 10); err != nil {
			return 0, err
		}
		w.owed &= 1<<10 - 1
	}
	return w.buf.Write(p)
}
