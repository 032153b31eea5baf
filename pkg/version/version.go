// Package version tells which build of Herald a program is. It depends on no other package of Herald.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"sync"
)

// linked is the version of a release. The linker sets it: -ldflags "-X herald/pkg/version.linked=v1.2.3". It serves builds
// without the history of the repository, such as those of a container image.
var linked string

// unknown is the version of a build that nothing tells the version of, such as a test.
const unknown = "devel"

// Info identifies a build.
type Info struct {
	Version  string `json:"version"`            // a release, or a pseudo-version of Go with the commit's time and hash; "devel" if neither is known
	Revision string `json:"revision,omitempty"` // commit, in full; empty if the build had no repository
	Modified bool   `json:"modified,omitempty"` // the files differed from the commit
	Go       string `json:"go"`                 // version of the Go tool chain
}

// Get returns the build of this program. The result does not change while the program runs.
var Get = sync.OnceValue(func() Info {
	build, _ := debug.ReadBuildInfo()
	return from(build, linked)
})

// from reads the build information that the Go tool chain stamps into a program. build may be nil.
func from(build *debug.BuildInfo, linked string) Info {
	if build == nil {
		return Info{Version: cmp.Or(linked, unknown)}
	}
	i := Info{Version: linked, Go: build.GoVersion}
	if i.Version == "" && build.Main.Version != "(devel)" {
		i.Version = build.Main.Version
	}
	i.Version = cmp.Or(i.Version, unknown)
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Revision = s.Value
		case "vcs.modified":
			i.Modified = s.Value == "true"
		}
	}
	return i
}

// shortRevision is the number of hex digits that identify a commit for people.
const shortRevision = 12

// String returns the build for people, such as "v1.2.3 (revision 0123456789ab, go1.26.0)".
func (i Info) String() string {
	if i.Revision == "" {
		return fmt.Sprintf("%s (%s)", i.Version, cmp.Or(i.Go, "unknown tool chain"))
	}
	state := ""
	if i.Modified {
		state = ", modified"
	}
	return fmt.Sprintf("%s (revision %.*s%s, %s)", i.Version, shortRevision, i.Revision, state, i.Go)
}
