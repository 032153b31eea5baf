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
// loop round costs one, and so does a kibibyte that a filter reads or writes. Steps bound the work independently of the speed
// and load of the machine; wall time is the second line of defence, for work that a price underestimates. The prices are
// measured: fault_test.go and the fuzz tests fail if a template takes more CPU time or memory than its bounds allow.
const (
	maxSteps    = 50_000
	maxHeld     = 4 << 20 // bytes that variables may hold at one time
	maxMade     = 8 << 20 // bytes that filters and captures may make
	maxElements = 10_000  // of an array that a filter makes
	elementSize = 32      // bytes that an element counts in addition to its content: an interface and its header
	writeSize   = 64      // bytes that a write counts in addition to its content, so that many short writes are not free
	clockSteps  = 64      // steps between two readings of the clock, so that reading it costs little
)

// The errors of exceeded bounds. They name the bound, so that the author of a template can act on them.

var (
	errTooLong  = fmt.Errorf("renders to over %d bytes", MaxOutput)
	errElements = fmt.Errorf("makes an array of over %d elements", maxElements)
	errWork     = errors.New("takes too many steps to render")
	errTime     = errors.New("takes too long to render")
	errMemory   = fmt.Errorf("keeps over %d bytes in variables", maxHeld)
	errMade     = fmt.Errorf("makes over %d bytes of text on the way", maxMade)
	errGone     = errors.New("the request was cancelled")
)

// budget counts the work of one rendering and stops it at a bound. Each part charges the budget before it does the work, so
// the bound is exceeded by at most one charge. A budget belongs to one rendering and is not safe for concurrent use.
type budget struct {
	steps int
	next  int // number of steps at which look must be called again; 0 after an error
	until time.Time
	done  <-chan struct{} // closed when the caller's context ends
	err   error           // the first bound that was exceeded; every later charge returns it

	vars map[string]any // the library's copy of the bindings
	held map[string]int // bytes by variable
	sum  int            // of held
	made int            // bytes of intermediate text and arrays

	counters map[string]int // of increment and decrement
}

// charge adds n steps and returns the error of an exceeded bound. It is called for every tag and write, so its common path is
// one addition and one comparison.
func (b *budget) charge(n int) error {
	if b.steps += n; b.steps < b.next {
		return nil
	}
	return b.look()
}

// look checks every bound on steps and time, and sets the next check.
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

// fail records an exceeded bound and returns the first one that was recorded.
func (b *budget) fail(err error) error {
	if b.err == nil {
		b.err, b.next = err, 0
	}
	return b.err
}

// make charges for size bytes of new text or of a new array. The garbage collector may not run during a rendering,
// so maxMade bounds what was allocated and not what is alive.
func (b *budget) make(size int) error {
	if b.made += size; b.made > maxMade {
		return b.fail(errMade)
	}
	return b.charge(size >> 10)
}

// hold records that a variable now has size bytes. Assigning a variable again releases its previous value.
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

// size returns the number of bytes that printing or comparing a value reads. A text that an array contains several times
// counts each time, because printing writes it each time. Counting stops beyond maxSize: nested arrays of one large text would
// take exponential time, and no budget covers such a value anyway.
func size(v any) int { return grow(0, v) }

// maxSize is the size at which a charge of one step per kibibyte exhausts the budget.
const maxSize = maxSteps << 10

// grow adds the size of v to n. The type switch covers the types of JSON values without reflection.
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

// limitedWriter collects the text of one field or one capture, at most MaxOutput bytes. Writes are charged in whole kibibytes;
// the remainder is carried over, so that many short writes cost as much as one long one.
type limitedWriter struct {
	buf  bytes.Buffer
	b    *budget
	owed int // bytes that are not yet charged, below 1 KiB between writes
}

var _ io.Writer = (*limitedWriter)(nil)

// Write implements io.Writer.
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
