package strictyaml

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-metrics/sluice/internal/nearest"
)

// Error is everything that is wrong with a file, in the order of the file.
type Error struct {
	File     string
	Problems []Problem
	lines    []string
}

// Error prints each problem as file:line:column: path: message, the line, and a
// caret under the mistake. Secrets in the line are hidden.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, p.Line, p.Column)
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.Message)
		if p.width > 0 && p.Line <= len(e.lines) && strings.TrimSpace(e.lines[p.Line-1]) != "" {
			b.WriteString(snippet(e.lines[p.Line-1], p))
		}
	}
	return b.String()
}

// maxShown is how many characters of a line are shown.
const maxShown = 140

func snippet(text string, p Problem) string {
	line, column, width := hide([]rune(strings.TrimRight(text, " \r")), p.Column-1, p.width)
	if from := column - maxShown/2; from > 0 && len(line) > maxShown {
		line = append([]rune("…"), line[from:]...)
		column -= from - 1
	}
	if len(line) > maxShown {
		line = append(line[:maxShown:maxShown], '…')
	}
	width = max(min(width, len(line)-column), 1)
	pad := make([]rune, 0, column)
	for i := range column {
		// A tab before the caret takes as many columns as the one above it.
		if i < len(line) && line[i] == '\t' {
			pad = append(pad, '\t')
		} else {
			pad = append(pad, ' ')
		}
	}
	number := strconv.Itoa(p.Line)
	gutter := strings.Repeat(" ", len(number))
	return fmt.Sprintf("\n  %s | %s\n  %s | %s%s", number, string(line), gutter, string(pad), strings.Repeat("^", width))
}

// token returns the column and the width of the word that starts at column of line;
// value is what the parser made of it. An anchor or a tag before it is left out.
func token(line []rune, column int, value string) (at, width int) {
	i := column - 1
	for i >= 0 && i < len(line) && (line[i] == '&' || line[i] == '!') {
		end := slices.Index(line[i:], ' ')
		if end < 0 {
			break
		}
		for i += end; i < len(line) && line[i] == ' '; {
			i++
		}
	}
	if i < 0 || i >= len(line) {
		return column, 1
	}
	rest := line[i:]
	switch {
	case rest[0] == '"' || rest[0] == '\'':
		for j := 1; j < len(rest); j++ {
			if rest[j] == rest[0] && (rest[0] == '\'' || rest[j-1] != '\\') {
				return i + 1, j + 1
			}
		}
		return i + 1, len(rest)
	case value != "" && strings.HasPrefix(string(rest), value):
		return i + 1, len([]rune(value))
	case rest[0] == '*':
		return i + 1, len([]rune(strings.FieldsFunc(string(rest), func(r rune) bool { return strings.ContainsRune(" ,]}", r) })[0]))
	}
	return i + 1, 1
}

// secretKeys are the keys whose values are never shown, also when they are misspelt.
var secretKeys = []string{
	"password", "secret", "secrets", "client_secret", "credentials", "token", "bearer_token",
	"authorization", "client_certificate_key", "api_key",
}

var (
	keyValue = regexp.MustCompile(`["']?([A-Za-z][A-Za-z0-9_-]*)["']?\s*:\s+`)
	userInfo = regexp.MustCompile(`(://[^/@\s:]*:)([^/@\s]+)@`)
)

const hidden = "<secret>"

// hideInText hides the password of a URL.
func hideInText(s string) string { return userInfo.ReplaceAllString(s, "${1}"+hidden+"@") }

// hide replaces secrets in a line, and moves column (from 0) and width along with the
// characters that they mark.
func hide(line []rune, column, width int) ([]rune, int, int) {
	for from := 0; from < len(line); {
		start, end := nextSecret(line, from)
		if start < 0 {
			break
		}
		masked := slices.Concat(line[:start], []rune(hidden), line[end:])
		switch grown := len(masked) - len(line); {
		case column >= end:
			column += grown
		case column >= start:
			column, width = start, len(hidden)
		case column+width > start:
			width = max(width+grown, 1)
		}
		line, from = masked, start+len(hidden)
	}
	return line, column, width
}

// nextSecret finds the next secret of line at or behind from; start is -1 when there
// is none.
func nextSecret(line []rune, from int) (start, end int) {
	text := string(line[from:])
	runes := func(bytes int) int { return from + len([]rune(text[:bytes])) }
	start = -1
	for _, m := range keyValue.FindAllStringSubmatchIndex(text, -1) {
		key := text[m[2]:m[3]]
		section := m[1] < len(text) && text[m[1]] == '{' && strings.EqualFold(key, "authorization")
		if !isSecretKey(key) || section || m[1] == len(text) {
			continue
		}
		start = runes(m[1])
		end = valueEnd(line, start)
		break
	}
	if m := userInfo.FindStringSubmatchIndex(text); m != nil && (start < 0 || runes(m[4]) < start) {
		start, end = runes(m[4]), runes(m[5])
	}
	return start, end
}

func isSecretKey(key string) bool {
	key = strings.ToLower(key)
	if strings.HasSuffix(key, "file") || strings.HasSuffix(key, "ref") || strings.HasSuffix(key, "url") {
		return false
	}
	for _, word := range []string{"passw", "secret", "token", "credential"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return key == "key" || nearest.Word(key, secretKeys) != ""
}

// valueEnd is where the value that starts at start ends: its quote or bracket, in a
// flow section the next comma or brace, else the end of the line.
func valueEnd(line []rune, start int) int {
	closing := ""
	switch line[start] {
	case '"', '\'':
		closing = string(line[start])
	case '[':
		closing = "]"
	case '{':
		closing = "}"
	default:
		if !slices.Contains(line[:start], '{') {
			return len(line)
		}
		if i := slices.IndexFunc(line[start:], func(r rune) bool { return r == ',' || r == '}' }); i >= 0 {
			return start + i
		}
		return len(line)
	}
	for i := start + 1; i < len(line); i++ {
		if string(line[i]) == closing && line[i-1] != '\\' {
			return i + 1
		}
	}
	return len(line)
}
