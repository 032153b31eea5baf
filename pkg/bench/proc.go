package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks is the unit of times in /proc: 1/100 s on every architecture (proc(5), USER_HZ).
const ticks = 100

// rss returns the peak resident memory of each started process in bytes (Linux only).
func (d *deployment) rss() map[string]int64 {
	out := map[string]int64{}
	for _, p := range d.started {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			continue // not Linux
		}
		_, after, _ := strings.Cut(string(b), "VmHWM:")
		line, _, _ := strings.Cut(after, "kB")
		if kb, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil {
			out[p.name] = kb << 10
		}
	}
	return out
}

// cpu returns the processor seconds that each started process has used (Linux only). All PostgreSQL processes of the machine
// count as one.
func (d *deployment) cpu() map[string]float64 {
	out := map[string]float64{}
	for _, p := range d.started {
		if s, _, ok := usage(strconv.Itoa(p.cmd.Process.Pid)); ok {
			out[p.name] = s
		}
	}
	if !d.own {
		return out
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	for _, path := range stats {
		if s, name, ok := usage(filepath.Base(filepath.Dir(path))); ok && strings.HasPrefix(name, "postgres") {
			out["postgres"] += s
		}
	}
	return out
}

// usage returns a process's processor seconds, including its ended children, and its name.
func usage(pid string) (seconds float64, name string, ok bool) {
	b, err := os.ReadFile("/proc/" + pid + "/stat") //nolint:gosec // a process's number
	if err != nil {
		return 0, "", false
	}
	_, after, _ := strings.Cut(string(b), "(")
	name, rest, found := strings.Cut(after, ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 15 {
		return 0, "", false
	}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseFloat(f, 64)
		seconds += n / ticks
	}
	return seconds, name, true
}

// profile records a processor profile of the last worker. It may end after the bulks.
func (d *deployment) profile(ctx context.Context, o Options) *loop[error] {
	return begin(ctx, func(ctx context.Context) error {
		if o.Profile == "" {
			return nil
		}
		if len(d.admin) == 0 {
			return errors.New("a profile needs the admin address of a worker")
		}
		from := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", d.admin[len(d.admin)-1], int(o.ProfileTime.Seconds()))
		return fetch(context.WithoutCancel(ctx), from, func(b io.Reader) error {
			f, err := os.Create(o.Profile)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, b)
			return errors.Join(err, f.Close())
		})
	})
}
