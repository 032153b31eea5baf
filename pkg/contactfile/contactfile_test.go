package contactfile_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"herald/pkg/contactfile"
)

// read reads a whole file. Rows that cannot be read stand as "line N: message".
func read(t *testing.T, file string, o contactfile.Options) (columns []string, rows [][]string, err error) {
	t.Helper()
	r, err := contactfile.NewReader(strings.NewReader(file), o)
	if err != nil {
		return nil, nil, err
	}
	for {
		row, err := r.Next()
		var bad *contactfile.RowError
		switch {
		case errors.Is(err, io.EOF):
			return r.Columns(), rows, nil
		case errors.As(err, &bad):
			rows = append(rows, []string{fmt.Sprintf("line %d: %s", row.Line, bad.Msg)})
		case err != nil:
			return r.Columns(), rows, err
		default:
			rows = append(rows, row.Cells)
		}
	}
}

func encoded(t *testing.T, e encoding.Encoding, text string) string {
	t.Helper()
	s, err := e.NewEncoder().String(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every way in which programs write the same table gives the same rows.
func TestCaseOneTableInManyForms(t *testing.T) {
	columns, rows := []string{"email", "Straße", "note"}, [][]string{{"ann@x.test", "Übergang", ""}, {"bob@x.test", "a;b,c|d\te", `say "hi"`}}
	quoted := "email%[1]sStraße%[1]snote\nann@x.test%[1]sÜbergang%[1]s\nbob@x.test%[1]s\"a;b,c|d\te\"%[1]s\"say \"\"hi\"\"\"\n"
	file := fmt.Sprintf(quoted, ",")
	for name, c := range map[string]struct {
		file string
		o    contactfile.Options
	}{
		"comma":                        {file, contactfile.Options{}},
		"semicolon":                    {fmt.Sprintf(quoted, ";"), contactfile.Options{}},
		"tab":                          {fmt.Sprintf(quoted, "\t"), contactfile.Options{}},
		"vertical bar":                 {fmt.Sprintf(quoted, "|"), contactfile.Options{}},
		"a named delimiter":            {fmt.Sprintf(quoted, "^"), contactfile.Options{Delimiter: '^'}},
		"a line that names it":         {"sep=;\n" + fmt.Sprintf(quoted, ";"), contactfile.Options{}},
		"a quoted line that names it":  {"\"sep=;\"\r\n" + fmt.Sprintf(quoted, ";"), contactfile.Options{}},
		"both":                         {"sep=,\n" + fmt.Sprintf(quoted, ";"), contactfile.Options{Delimiter: ';'}},
		"CRLF":                         {strings.ReplaceAll(file, "\n", "\r\n"), contactfile.Options{}},
		"CR":                           {strings.ReplaceAll(file, "\n", "\r"), contactfile.Options{}},
		"no end of the last line":      {strings.TrimSuffix(file, "\n"), contactfile.Options{}},
		"blank lines":                  {"\n \n" + strings.ReplaceAll(file, "\n", "\n\n"), contactfile.Options{}},
		"a UTF-8 mark":                 {"\ufeff" + file, contactfile.Options{}},
		"UTF-8 by name":                {file, contactfile.Options{Charset: "UTF8"}},
		"UTF-16, little end first":     {encoded(t, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), file), contactfile.Options{}},
		"UTF-16, big end first":        {encoded(t, unicode.UTF16(unicode.BigEndian, unicode.UseBOM), file), contactfile.Options{}},
		"UTF-16 without a mark":        {encoded(t, unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), file), contactfile.Options{Charset: "utf-16le"}},
		"a mark against another name":  {encoded(t, unicode.UTF16(unicode.BigEndian, unicode.UseBOM), file), contactfile.Options{Charset: "windows-1252"}},
		"Windows-1252":                 {encoded(t, charmap.Windows1252, file), contactfile.Options{Charset: "windows-1252"}},
		"ISO 8859-15, in any case":     {encoded(t, charmap.ISO8859_15, file), contactfile.Options{Charset: "ISO-8859-15"}},
		"empty columns at the end":     {strings.Replace(file, "note\n", "note,,\n", 1), contactfile.Options{}},
		"spaces around quoted cells":   {strings.ReplaceAll(file, `"a;b,c|d`+"\te\"", `  "a;b,c|d`+"\te\"  "), contactfile.Options{}},
		"everything quoted":            {"\"email\",\"Straße\",\"note\"\n\"ann@x.test\",\"Übergang\",\"\"\n\"bob@x.test\",\"a;b,c|d\te\",\"say \"\"hi\"\"\"", contactfile.Options{}},
		"quoted names with delimiters": {strings.Replace(fmt.Sprintf(quoted, ";"), "note", `"note"`, 1), contactfile.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			gotColumns, gotRows, err := read(t, c.file, c.o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(columns, gotColumns); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(rows, gotRows); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCaseRowsThatAreOdd(t *testing.T) {
	broken := func(n int) (file string, want [][]string) {
		var b strings.Builder
		b.WriteString("email,name\n\"ann@x.test,Ann\n")
		want = append(want, []string{"line 2: a quote in this row is never closed"})
		for i := range n {
			fmt.Fprintf(&b, "p%d@x.test,P%d\n", i, i)
			want = append(want, []string{fmt.Sprintf("p%d@x.test", i), fmt.Sprintf("P%d", i)})
		}
		return b.String(), want
	}
	short, afterShort := broken(5)
	long, afterLong := broken(3_000)
	for name, c := range map[string]struct {
		file string
		want [][]string
	}{
		"fewer cells":              {"email,name,city\na@x.test\n", [][]string{{"a@x.test"}}},
		"more cells":               {"email,name\na@x.test,A,B\n", [][]string{{"a@x.test", "A", "B"}}},
		"a bare quote":             {"email,name\na@x.test,5\" nail\n", [][]string{{"a@x.test", `5" nail`}}},
		"two bare quotes":          {"email,name\na@x.test,Ann \"The\" X\n", [][]string{{"a@x.test", `Ann "The" X`}}},
		"line ends in a cell":      {"email,name\r\na@x.test,\"one\r\ntwo\n\nthree\"\r\nb@x.test,B\r\n", [][]string{{"a@x.test", "one\ntwo\n\nthree"}, {"b@x.test", "B"}}},
		"line ends in two cells":   {"email,name\n\"a\nb\",\"c\nd\"\n", [][]string{{"a\nb", "c\nd"}}},
		"text after a quoted cell": {"email,name\n\"a@x.test\"x,A\nb@x.test,B\n", [][]string{{"line 2: a quoted cell goes on after its closing quote"}, {"b@x.test", "B"}}},
		"an open quote":            {short, afterShort},
		"an open quote far above":  {long, afterLong},
		"a quote that closes in another row": {
			"email,name\n\"ann@x.test,Ann\nb@x.test,B\n\"c@x.test\",C\nd@x.test,D\n",
			[][]string{{"line 2: a quoted cell goes on after its closing quote"}, {"b@x.test", "B"}, {"c@x.test", "C"}, {"d@x.test", "D"}},
		},
		"one column": {"email\n\"a@x.test\nb@x.test\n", [][]string{{"line 2: a quote in this row is never closed"}, {"b@x.test"}}},
		"lines of a lost cell that have the width of a row": {
			"email,name\n\"a\nsecond\nthird\"x,A\nb@x.test,B\n",
			[][]string{{"line 2: a quoted cell goes on after its closing quote"}, {"third\"x", "A"}, {"b@x.test", "B"}},
		},
		"a long row":   {"email,name\na@x.test," + strings.Repeat("a", contactfile.MaxRow) + "\nb@x.test,B\n", [][]string{{"line 2: a row has at most 1048576 bytes"}, {"b@x.test", "B"}}},
		"a full row":   {"email\n" + strings.Repeat("a", contactfile.MaxRow) + "\n", [][]string{{strings.Repeat("a", contactfile.MaxRow)}}},
		"nothing else": {"email,name\n", nil},
		"a long row without an end": {
			"email,name\nb@x.test,B\na@x.test," + strings.Repeat("a", contactfile.MaxRow),
			[][]string{{"b@x.test", "B"}, {"line 3: a row has at most 1048576 bytes"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, rows, err := read(t, c.file, contactfile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, rows); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCaseFilesThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		o    contactfile.Options
		want contactfile.FileError
	}{
		"empty":                        {"", contactfile.Options{}, contactfile.FileError{Empty: true, Msg: "the file is empty: its first row must name the columns"}},
		"blank":                        {" \r\n\n", contactfile.Options{}, contactfile.FileError{Empty: true, Msg: "the file is empty: its first row must name the columns"}},
		"Windows-1252 without a name":  {"email,name\nann@x.test,J\xfcrgen\n", contactfile.Options{}, contactfile.FileError{Option: "charset", Line: 2, Msg: "line 2 is not valid UTF-8: name the encoding of the file, for example windows-1252"}},
		"an encoding without a name":   {"email,gr\xf6\xdfe\n", contactfile.Options{}, contactfile.FileError{Option: "charset", Line: 1, Msg: "line 1 is not valid UTF-8: name the encoding of the file, for example windows-1252"}},
		"UTF-16 without a mark":        {"e\x00m\x00,\x00n\x00", contactfile.Options{}, contactfile.FileError{Option: "charset", Msg: "the file has NUL bytes: if it is UTF-16 without a byte order mark, name utf-16le or utf-16be"}},
		"an unknown encoding":          {"email\n", contactfile.Options{Charset: "klingon"}, contactfile.FileError{Option: "charset", Msg: "is not the name of an encoding that can be read, for example utf-8, utf-16le, windows-1252 or iso-8859-15"}},
		"an encoding that is a refuse": {"email\n", contactfile.Options{Charset: "iso-2022-kr"}, contactfile.FileError{Option: "charset", Msg: "is not the name of an encoding that can be read, for example utf-8, utf-16le, windows-1252 or iso-8859-15"}},
		"a delimiter that is a quote":  {"email\n", contactfile.Options{Delimiter: '"'}, contactfile.FileError{Option: "delimiter", Msg: "must be one ASCII character other than a quote and a line end"}},
		"a delimiter that is no ASCII": {"email\n", contactfile.Options{Delimiter: '§'}, contactfile.FileError{Option: "delimiter", Msg: "must be one ASCII character other than a quote and a line end"}},
		"a workbook":                   {"PK\x03\x04...", contactfile.Options{}, contactfile.FileError{Media: true, Msg: "the file is a ZIP archive, as .xlsx files are: save the sheet as CSV in UTF-8"}},
		"an old workbook":              {"\xd0\xcf\x11\xe0\xa1\xb1", contactfile.Options{}, contactfile.FileError{Media: true, Msg: "the file is an .xls workbook: save the sheet as CSV in UTF-8"}},
		"a PDF":                        {"%PDF-1.7\n", contactfile.Options{}, contactfile.FileError{Media: true, Msg: "the file is a PDF document"}},
		"gzip":                         {"\x1f\x8b\x08\x00", contactfile.Options{}, contactfile.FileError{Media: true, Msg: "the file is compressed with gzip: send it uncompressed"}},
		"a picture":                    {"\x89PNG\r\n", contactfile.Options{}, contactfile.FileError{Media: true, Msg: "the file is a picture"}},
		"an HTML page":                 {"\ufeff\n <!DOCTYPE html>\n<html>", contactfile.Options{}, contactfile.FileError{Msg: "the file is an HTML page"}},
		"a vCard":                      {"BEGIN:VCARD\nFN:Ann", contactfile.Options{}, contactfile.FileError{Msg: "the file is a vCard: export the contacts as CSV"}},
		"JSON":                         {`[{"email":"a@x.test"}]`, contactfile.Options{}, contactfile.FileError{Msg: "the file looks like JSON; send JSON with one lead per line as application/x-ndjson"}},
		"a header that is open":        {"\"email,name\na@x.test,A\n", contactfile.Options{}, contactfile.FileError{Line: 1, Msg: "the row with the names of the columns cannot be read: a quote in this row is never closed"}},
		"a header that is too long":    {strings.Repeat("a", contactfile.MaxRow+1) + "\n", contactfile.Options{}, contactfile.FileError{Line: 1, Msg: "the row with the names of the columns cannot be read: a row has at most 1048576 bytes"}},
		"too many columns":             {strings.Repeat("a,", contactfile.MaxColumns) + "a\n", contactfile.Options{}, contactfile.FileError{Line: 1, Wide: true, Msg: "a file has at most 500 columns"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read(t, c.file, c.o)
			var got *contactfile.FileError
			if !errors.As(err, &got) || *got != c.want {
				t.Errorf("%#v, want %#v", err, c.want)
			}
		})
	}
}

// A text whose encoding the caller named loses the rows that are not in it, and no others.
func TestCaseRowsOutsideTheNamedEncoding(t *testing.T) {
	_, rows, err := read(t, "email\na@x.test\nb\xff@x.test\nc@x.test\n", contactfile.Options{Charset: "utf-8"})
	if d := cmp.Diff([][]string{{"a@x.test"}, {"line 3: not valid utf-8"}, {"c@x.test"}}, rows); d != "" || err != nil {
		t.Error(d, err)
	}
}

// An error of the upload is returned as it is, from every place at which it can come.
func TestErrorsOfTheUpload(t *testing.T) {
	cut := errors.New("cut")
	for _, before := range []string{"", "em", "email,name\n", "email,name\na@x.test,\"A\n", "email,name\na@x.test,A\nb@x"} {
		r, err := contactfile.NewReader(io.MultiReader(strings.NewReader(before), iotest.ErrReader(cut)), contactfile.Options{})
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, cut) {
			t.Errorf("%q: %v", before, err)
		}
	}
}

// Memory does not depend on the length of a line.
func TestCaseOneEndlessLine(t *testing.T) {
	line := io.LimitReader(endless{}, 90<<20)
	r, err := contactfile.NewReader(io.MultiReader(strings.NewReader("email,name\na@x.test,"), line, strings.NewReader("\nb@x.test,B\n")), contactfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	row, err := r.Next()
	runtime.ReadMemStats(&after)
	if bad := (*contactfile.RowError)(nil); !errors.As(err, &bad) || row.Line != 2 {
		t.Fatalf("%+v, %v", row, err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated for a line of 90 MB", grown)
	}
	if row, err := r.Next(); err != nil || row.Line != 3 || row.Cells[0] != "b@x.test" {
		t.Errorf("%+v, %v", row, err)
	}
}

type endless struct{}

// Read implements io.Reader.
func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}

// A file in which every row opens a quote costs every row, and linear time.
func TestCaseManyOpenQuotes(t *testing.T) {
	const n = 20_000
	file := "email,name\n" + strings.Repeat("\"a,b\n", n)
	_, rows, err := read(t, file, contactfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Each row is the first of a pair: the quote of the next row closes its cell, and text follows it.
	for _, row := range rows {
		if len(row) != 1 || !strings.HasPrefix(row[0], "line ") {
			t.Fatalf("%q is a row", row)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"email,name\na@x.test,A\n", "sep=;\nemail;name\r\n\"a\";\"b\"\"c\"\r\n", "\xff\xfee\x00", "\ufeffemail\tname\n\"a\nb\"\tc\n", "a|b\n\"x\n\"y\"|z\n",
	} {
		f.Add([]byte(seed), "", byte(0))
		f.Add([]byte(seed), "windows-1252", byte(';'))
	}
	f.Fuzz(func(t *testing.T, file []byte, charset string, delimiter byte) {
		r, err := contactfile.NewReader(strings.NewReader(string(file)), contactfile.Options{Charset: charset, Delimiter: rune(delimiter)})
		if err != nil {
			if fe := (*contactfile.FileError)(nil); !errors.As(err, &fe) || fe.Msg == "" {
				t.Fatalf("NewReader: %v", err)
			}
			return
		}
		last := 0
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if row.Line <= last {
				t.Fatalf("line %d after line %d", row.Line, last)
			}
			last = row.Line
			var bad *contactfile.RowError
			var broken *contactfile.FileError
			switch {
			case errors.As(err, &broken):
				return
			case errors.As(err, &bad):
			case err != nil:
				t.Fatal(err)
			case len(row.Cells) == 0:
				t.Fatal("a row without cells")
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	row := "ann@example.com,Ann,Example,+14155550101,Enterprise Customers Ltd,\"vip;Import 10/05/25\"\n"
	file := "email,first_name,last_name,phone,company,tags\n" + strings.Repeat(row, 10_000)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := contactfile.NewReader(strings.NewReader(file), contactfile.Options{})
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}
