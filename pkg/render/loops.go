package render

import (
	"errors"
	"io"
	"reflect"
	"strconv"

	"github.com/osteele/liquid/render"
)

const forloop = "forloop" // the variable that contains the position of the innermost loop

// loopBlock runs {% for %}: it renders the body for each element, or the else clause if no element is left. A value that is
// neither array nor map renders nothing, not even the else clause.
func loopBlock(node render.BlockNode) tagRunner {
	return func(x execution) error {
		items, ok, err := elements(x.b, x.v)
		if !ok || err != nil {
			return err
		}
		if items, err = x.loop.part(x.b, items); err != nil {
			return err
		}
		if len(node.Clauses) > 1 {
			return errors.New("for takes one else")
		}
		if len(items) == 0 && len(node.Clauses) == 1 {
			return x.ctx.RenderBlock(x.w, node.Clauses[0])
		}
		return x.rounds(items)
	}
}

// elements returns the elements of a loop: those of an array, or pairs of the keys and values of a map, in Go's random
// order. ok is false for a value that has no elements. Bindings from JSON are []any and need no copy; typed slices and maps
// are copied by reflection, which is charged by their length.
func elements(b *budget, v any) (items []any, ok bool, err error) {
	if items, ok := v.([]any); ok {
		return items, true, nil
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Array, reflect.Slice:
		if err := b.charge(rv.Len() / 16); err != nil {
			return nil, false, err
		}
		items = make([]any, rv.Len())
		for i := range items {
			items[i] = rv.Index(i).Interface()
		}
	case reflect.Map:
		if err := b.charge(rv.Len() / 2); err != nil {
			return nil, false, err
		}
		items = make([]any, rv.Len())
		it := rv.MapRange()
		for i := 0; it.Next(); i++ {
			items[i] = []any{it.Key().Interface(), it.Value().Interface()}
		}
	default:
		return nil, false, nil
	}
	return items, true, nil
}

// part applies the modifiers of a loop. The order reversed, offset, limit is the library's and does not depend on the order
// in the template. A negative offset or limit has no effect.
func (l *loop) part(b *budget, items []any) ([]any, error) {
	if l.reversed {
		if err := b.charge(len(items) / 64); err != nil {
			return nil, err
		}
		turned := make([]any, len(items))
		for i, v := range items {
			turned[len(items)-1-i] = v
		}
		items = turned
	}
	if l.offset != nil {
		n, err := whole(b, l.offset, "offset")
		if err != nil {
			return nil, err
		}
		if n > 0 {
			items = items[min(n, len(items)):]
		}
	}
	if l.limit != nil {
		n, err := whole(b, l.limit, "limit")
		if err != nil {
			return nil, err
		}
		if n >= 0 {
			items = items[:min(n, len(items))]
		}
	}
	return items, nil
}

// whole evaluates a modifier. A text of digits is not converted: it is an error.
func whole(b *budget, x expr, what string) (int, error) {
	v, err := x.eval(b)
	if err != nil {
		return 0, err
	}
	n, ok := v.(int)
	if !ok {
		return 0, errors.New("a loop's " + what + " must be a whole number")
	}
	return n, nil
}

// rounds renders the body for each element. Afterwards the variables of the loop have their previous values, so that an
// inner loop does not change the forloop of the outer one.
//
// A round costs one step, and one for each 256 bytes of text in the body: the library writes such text without a call to
// this package, so rounds would otherwise be free.
func (x execution) rounds(items []any) error {
	vars := x.b.vars
	defer func(outer, variable any) {
		vars[forloop], vars[x.name] = outer, variable
	}(vars[forloop], vars[x.name])
	place := map[string]any{cycles: map[string]int{}, "length": len(items)}
	vars[forloop] = place
	for i, v := range items {
		if err := x.b.charge(1 + x.loop.text>>8); err != nil {
			return err
		}
		vars[x.name] = v
		place["first"], place["last"] = i == 0, i == len(items)-1
		place["index"], place["index0"] = i+1, i
		place["rindex"], place["rindex0"] = len(items)-i, len(items)-i-1
		err := x.ctx.RenderChildren(x.w)
		switch {
		case err == nil || errors.Is(err.Cause(), errContinue):
		case errors.Is(err.Cause(), errBreak):
			return nil
		default:
			return err
		}
	}
	return nil
}

// count runs {% increment %}, which writes a counter and adds one to it, and {% decrement %}, which subtracts one and writes
// it. Counters begin at 0.
func count(x execution) error {
	if x.b.counters == nil {
		x.b.counters = map[string]int{}
	}
	n := x.b.counters[x.name]
	if x.tag == "decrement" {
		n--
		x.b.counters[x.name] = n
	} else {
		x.b.counters[x.name] = n + 1
	}
	_, err := io.WriteString(x.w, strconv.Itoa(n))
	return err
}

// cycles is the key of forloop that counts the uses of each cycle group. The dot keeps it apart from the properties of forloop.
const cycles = ".cycles"

// cycle runs {% cycle %}: it writes the next of its texts. Cycles of one group share a position.
func cycle(x execution) error {
	place, _ := x.ctx.Bindings()[forloop].(map[string]any)
	used, _ := place[cycles].(map[string]int)
	if used == nil {
		return errors.New("cycle must stand in a loop")
	}
	n := used[x.name]
	used[x.name] = n + 1
	_, err := io.WriteString(x.w, x.list[n%len(x.list)])
	return err
}
