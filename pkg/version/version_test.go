package version

import (
	"runtime/debug"
	"testing"
)

func TestIntegrationTheVersionOfABuild(t *testing.T) {
	stamped := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Path: "herald", Version: version}, Settings: settings}
	}
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	for name, c := range map[string]struct {
		build  *debug.BuildInfo
		linked string
		want   string
	}{
		"a commit":              {stamped("v0.0.0-20261127210532-0123456789ab", commit), "", "v0.0.0-20261127210532-0123456789ab (revision 0123456789ab, go1.26.0)"},
		"changed files":         {stamped("v1.2.3+dirty", commit, debug.BuildSetting{Key: "vcs.modified", Value: "true"}), "", "v1.2.3+dirty (revision 0123456789ab, modified, go1.26.0)"},
		"unchanged files":       {stamped("v1.2.3", commit, debug.BuildSetting{Key: "vcs.modified", Value: "false"}), "", "v1.2.3 (revision 0123456789ab, go1.26.0)"},
		"without a repository":  {stamped("(devel)"), "", "devel (go1.26.0)"},
		"an image of a release": {stamped("(devel)"), "v1.4.0", "v1.4.0 (go1.26.0)"},
		"a release":             {stamped("v0.0.0-20261127210532-0123456789ab", commit), "v1.4.0", "v1.4.0 (revision 0123456789ab, go1.26.0)"},
		"no information":        {nil, "", "devel (unknown tool chain)"},
		"only the linker's":     {nil, "v1.4.0", "v1.4.0 (unknown tool chain)"},
	} {
		if got := from(c.build, c.linked).String(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := Get(); got.Version == "" || got.Go == "" {
		t.Errorf("this program: %+v", got)
	}
}
