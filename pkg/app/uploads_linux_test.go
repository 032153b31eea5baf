package app_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// memory returns the resident memory of a program, and the most that it had since the last call, in bytes.
func (s *system) memory(p *process) (now, most int64) {
	s.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		s.t.Fatal(err)
	}
	value := func(name string) int64 {
		_, after, _ := strings.Cut(string(status), name+":")
		kb, _, _ := strings.Cut(after, "kB")
		n, err := strconv.ParseInt(strings.TrimSpace(kb), 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		return n << 10
	}
	if err := os.WriteFile(dir+"clear_refs", []byte("5"), 0); err != nil { // proc(5): resets the peak
		s.t.Fatal(err)
	}
	return value("VmRSS"), value("VmHWM")
}

// repeated is a reader of n bytes that are all the same text.
func repeated(text string, n int64) io.Reader {
	return io.LimitReader(&repeating{text: text}, n)
}

type repeating struct {
	text string
	at   int
}

// Read implements io.Reader.
func (r *repeating) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = r.text[r.at]
		r.at = (r.at + 1) % len(r.text)
	}
	return len(b), nil
}

// upload imports a file and returns the answer.
func (s *system) upload(media, encoding string, file io.Reader) (status int, answer string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.base+"/api/leads/import", file)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", media)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// workbookBomb returns a small .xlsx file with a sheet of n bytes.
func workbookBomb(t *testing.T, n int64) io.Reader {
	t.Helper()
	var file bytes.Buffer
	archive := zip.NewWriter(&file)
	for name, content := range map[string]io.Reader{
		"[Content_Types].xml": strings.NewReader("<Types/>"), "xl/workbook.xml": strings.NewReader("<workbook/>"), "xl/worksheets/sheet1.xml": repeated("<row/>", n),
	} {
		w, err := archive.Create(name)
		if err == nil {
			_, err = io.Copy(w, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return &file
}

func gzipped(t *testing.T, content io.Reader) io.Reader {
	t.Helper()
	var file bytes.Buffer
	w := gzip.NewWriter(&file)
	if _, err := io.Copy(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &file
}

// Files that are made to take memory are answered with the place of the mistake. The API's memory hardly grows.
func TestCaseUploadsThatWouldTakeMemory(t *testing.T) {
	t.Parallel()
	const most, line = 150 << 20, 90 << 20
	const csv, ndjson = "text/csv", "application/x-ndjson"
	s := deploy(t)
	idle, _ := s.memory(s.startedAPI)
	text := strings.NewReader
	for _, c := range []struct {
		name, media, encoding string
		file                  io.Reader
		status                int
		says                  []string
		written               int
	}{
		{
			"a row of 90 MB", csv, "", io.MultiReader(text("email,first_name\nann@x.test,"), repeated("a", line), text("\nbob@x.test,Bob\n")),
			200, []string{`"imported":1`, `"rejected":1`, `{"line":2,"msg":"a row has at most 1048576 bytes"}`}, 1,
		},
		{
			"a quoted cell of 90 MB", csv, "", io.MultiReader(text("email,first_name\nann@x.test,\""), repeated("a", line), text("\"\ncy@x.test,Cy\n")),
			200, []string{`"imported":1`, `"rejected":1`, `{"line":2,`}, 1,
		},
		{
			"a line of 90 MB in NDJSON", ndjson, "", io.MultiReader(text(`{"email":"`), repeated("a", line), text("\"}\n{\"email\":\"dee@x.test\"}\n")),
			200, []string{`"imported":1`, `"rejected":1`, `{"line":1,"msg":"a row has at most 262144 bytes"}`}, 1,
		},
		{"a header of 90 MB", csv, "", io.MultiReader(text("email,"), repeated("a", line), text("\nann@x.test,A\n")), 422, []string{`["body",1]`, "at most 1048576 bytes"}, 0},
		{"a million columns", csv, "", io.MultiReader(repeated("column,", 7_000_000), text("email\nann@x.test\n")), 422, []string{`["body",1]`, "at most 1048576 bytes"}, 0},
		{"a million columns without names", csv, "", io.MultiReader(text("email"), repeated(",", 1_000_000), text("a\nann@x.test\n")), 422, []string{`["body",1]`, "at most 500 columns"}, 0},
		{"a row of a million cells", csv, "", io.MultiReader(text("email\nann@x.test"), repeated(",x", 1_000_000), text("\neve@x.test\n")), 200, []string{`"imported":1`, `{"line":2,"msg":"the row has 500001 cells, the header has 1"}`}, 1},
		{"a workbook that is a zip bomb", csv, "", workbookBomb(t, 256<<20), 415, []string{"ZIP archive"}, 0},
		{"a file of 128 MB in gzip", csv, "gzip", gzipped(t, io.MultiReader(text("email\n"), repeated("a", 128<<20))), 413, []string{"100 MB"}, 0},
	} {
		before := s.number("SELECT count(*) FROM leads")
		s.memory(s.startedAPI)
		status, answer := s.upload(c.media, c.encoding, c.file)
		for _, part := range c.says {
			if status != c.status || !strings.Contains(answer, part) {
				t.Errorf("%s: %d %.500s, want %d with %s", c.name, status, answer, c.status, part)
			}
		}
		if written := s.number("SELECT count(*) FROM leads") - before; written != c.written {
			t.Errorf("%s: %d leads were written", c.name, written)
		}
		if _, peak := s.memory(s.startedAPI); peak-idle > most {
			t.Errorf("%s: %d MB above the %d MB of the idle API", c.name, (peak-idle)>>20, idle>>20)
		} else {
			t.Logf("%s: %d MB above the %d MB of the idle API", c.name, (peak-idle)>>20, idle>>20)
		}
	}
}

// importRows makes TestCaseAnImportOfManyRows take a file of another length. From manyRows on its speed is checked too.
var importRows = flag.Int("import.rows", 10_000, "rows of the file that TestCaseAnImportOfManyRows imports")

const manyRows = 100_000

// importSummary is the last line of `herald leads import`.
var importSummary = regexp.MustCompile(`(?m)^(\d+) rows: (\d+) imported, (\d+) updated, (\d+) unchanged, (\d+) rejected`)

// A file of many rows is imported by the command line in constant memory of the API. A second import of it changes nothing, and
// takes less than half the time.
func TestCaseAnImportOfManyRows(t *testing.T) {
	if t.Parallel(); *importRows >= manyRows {
		t.Log("measuring: let nothing else run on the machine")
	}
	const most = 150 << 20
	s := deploy(t)
	path := filepath.Join(t.TempDir(), "leads.csv")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(file, "email,first_name,last_name,phone,company")
	for i := range *importRows {
		if _, err := fmt.Fprintf(file, "lead%07d@example.com,Name%d,Example,+1415%07d,Company %d\n", i, i, i, i%500); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "HERALD_URL="+s.base)
	n := strconv.Itoa(*importRows)
	took := make([]time.Duration, 2)
	for i, want := range [][]string{{n, n, "0", "0", "0"}, {n, "0", "0", n, "0"}} {
		s.memory(s.startedAPI)
		began := time.Now()
		out, err := s.command("herald", "leads", "import", path).CombinedOutput()
		took[i] = time.Since(began)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := importSummary.FindStringSubmatch(string(out)); got == nil || !slices.Equal(got[1:], want) {
			t.Errorf("import %d says %s, want %v", i+1, out, want)
		}
		if !regexp.MustCompile(`(?m)^  (\d+) of \d+ bytes$`).Match(out) {
			t.Errorf("import %d shows no progress: %s", i+1, out)
		}
		_, peak := s.memory(s.startedAPI)
		t.Logf("import %d: %d rows in %s, %.0f rows/s, the API's memory at most %d MB", i+1, *importRows, took[i].Round(time.Millisecond), float64(*importRows)/took[i].Seconds(), peak>>20)
		if peak > most {
			t.Errorf("import %d took %d MB", i+1, peak>>20)
		}
	}
	if leads := s.number("SELECT count(*) FROM leads"); leads != *importRows {
		t.Errorf("%d leads", leads)
	}
	if *importRows >= manyRows && took[1] > took[0]/2 {
		t.Errorf("the second import took %s, the first one %s", took[1], took[0])
	}
}
