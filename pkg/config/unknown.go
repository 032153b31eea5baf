package config

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"herald/pkg/provider/vendors"
)

// prefix begins the name of every setting except DATABASE_URL and REDIS_URL.
const prefix = "HERALD_"

// UnknownSetting is a variable whose name begins like a setting's and is none: probably a misspelt setting.
type UnknownSetting struct {
	Name    string
	Nearest string // the setting with the most similar name; empty if none is similar
}

// String says what is wrong. It does not contain the value, which may be a secret.
func (u UnknownSetting) String() string {
	if u.Nearest == "" {
		return u.Name + " is not a setting and is ignored"
	}
	return fmt.Sprintf("%s is not a setting and is ignored; the nearest is %s", u.Name, u.Nearest)
}

// elsewhere are variables of tests, of docker-compose.yml, and of builds with the tag faults.
var elsewhere = regexp.MustCompile(`^HERALD_(TEST_\w+|DB_PASSWORD|FAULT|TIMING)$`)

// linked are variables that Kubernetes sets in every pod for a service named herald or herald-x ("service links").
var linked = regexp.MustCompile(`^HERALD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=|^HERALD_(\w+_)?PORT=(tcp|udp|sctp)://`)

// UnknownSettings returns the unknown settings among variables of the form NAME=value (os.Environ), ordered by name.
func UnknownSettings(environ []string) []UnknownSetting {
	known := names()
	var out []UnknownSetting
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(strings.ToUpper(name), prefix) || slices.Contains(known, name) || elsewhere.MatchString(name) || linked.MatchString(variable) {
			continue
		}
		out = append(out, UnknownSetting{name, nearest(name, known)})
	}
	slices.SortFunc(out, func(a, b UnknownSetting) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// names returns the names of all settings.
func names() []string {
	var all []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if name := f.Tag.Get("env"); name != "" {
			all = append(all, name)
		}
	}
	for _, p := range vendors.All.Providers() {
		all = append(all, p.URLSetting())
	}
	return all
}

// nearest returns the name with the smallest edit distance, which must be below half of the name's own length.
func nearest(name string, known []string) string {
	name = strings.ToUpper(name)
	best, found := (len(name)-len(prefix)+1)/2, ""
	for _, k := range known {
		if d := distance(name, k); d <= best && (found == "" || d < best) {
			best, found = d, k
		}
	}
	return found
}

// distance returns the number of bytes to insert, delete and replace that make a into b (Levenshtein distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of the beginnings of b, for the part of a so far
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
