package app

import (
	"bufio"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory sets the runtime's memory limit to nine tenths of the control group's, so that the collector works harder
// before the kernel kills the process. The rest is for memory that the Go runtime does not count: the binary, page tables
// and file pages. GOMEMLIMIT takes precedence. A process in a group without a limit gets none.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := groupLimit(os.DirFS("/")); limit > 0 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// groupLimit returns the lowest memory limit of the process's control group and its ancestors, in bytes; 0 is no limit. It
// reads both versions of the kernel's interface (docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html).
func groupLimit(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	groups, err := root.Open("proc/self/cgroup")
	if err != nil {
		return 0
	}
	defer func() { _ = groups.Close() }() // it was only read
	for lines := bufio.NewScanner(groups); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3) // hierarchy:controllers:path
		if len(parts) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[0] == "0" && parts[1] == "":
		case hasController(parts[1], "memory"):
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be one of the host that is not mounted. The root is the container's group then.
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			least = min(least, readLimit(root, path.Join(mount, group, file)))
			if group == "/" {
				break
			}
		}
	}
	if least >= noLimit {
		return 0
	}
	return least
}

// noLimit is more memory than any machine has: version 1 of the interface writes such a number for "no limit".
const noLimit = 1 << 60

func hasController(list, name string) bool {
	for c := range strings.SplitSeq(list, ",") {
		if c == name {
			return true
		}
	}
	return false
}

func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}
