package strictyaml

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Error is everything that is wrong with a file, in the order of the file.
type Error struct {
	File     string
	Problems []Problem
	lines    []string
	secrets  map[int][]span // by index of the line
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
			b.WriteString(snippet(e.lines[p.Line-1], e.secrets[p.Line-1], p))
		}
	}
	return b.String()
}

// maxShown is how many characters of a line are shown.
const maxShown = 140

func snippet(text string, secrets []span, p Problem) string {
	line, column, width := hide([]rune(strings.TrimRight(text, " \r")), secrets, p.Column-1, p.width)
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
