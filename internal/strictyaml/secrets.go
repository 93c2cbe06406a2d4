package strictyaml

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-metrics/sluice/internal/nearest"
)

const hidden = "<secret>"

// secretKeys are keys whose values are never shown, also when they are misspelt.
var secretKeys = []string{
	"password", "secret", "secrets", "client_secret", "credentials", "token", "bearer_token",
	"authorization", "client_certificate_key", "api_key",
}

// addressKeys are keys of connection strings: in a message they are not shown, because a
// password can stand anywhere in one that is wrong. Their types hide the password of one
// that is right.
var addressKeys = []string{"dsn", "conninfo", "connection_string"}

// secretWord reports whether the word names a secret, as it is written.
func secretWord(word string) bool {
	word = strings.ToLower(word)
	for _, ending := range []string{"file", "files", "ref", "url", "username"} {
		if strings.HasSuffix(word, ending) {
			return false
		}
	}
	for _, part := range []string{"passw", "passphrase", "pwd", "secret", "token", "credential", "authorization", "cookie", "apikey", "assertion"} {
		if strings.Contains(word, part) {
			return true
		}
	}
	return word == "key" || word == "pass" || word == "pw" || strings.HasSuffix(word, "_key") || strings.HasSuffix(word, "-key") || strings.HasPrefix(word, "x-auth")
}

func isSecretKey(key string) bool {
	key = strings.ToLower(key)
	if secretWord(key) {
		return true
	}
	near := nearest.Word(key, secretKeys)
	return near != "" && !strings.HasSuffix(key, "file") && !strings.HasSuffix(key, "ref") && !strings.HasSuffix(key, "url")
}

// holdsSecret reports whether a value under the key is not to be shown in a message.
func holdsSecret(key string) bool {
	return isSecretKey(key) || nearest.Word(key, addressKeys) != "" || strings.EqualFold(key, "uri")
}

// isAuthorization reports whether a section under the key may be shown but for the values
// in it: the client setting of that name, or a header's values.
func isAuthorization(key string) bool {
	return strings.HasSuffix(strings.ToLower(key), "authorization")
}

// shownInAuthorization reports whether the value under the key is not the secret itself.
func shownInAuthorization(key string) bool {
	key = strings.ToLower(key)
	return key == "type" || strings.HasSuffix(key, "file") || strings.HasSuffix(key, "files") || strings.HasSuffix(key, "ref")
}

var (
	// urlInMessage and urlInLine have the password of a URL in their group. One that is not
	// escaped may hold all that ends it elsewhere; in a message the quotes bound it.
	urlInMessage = regexp.MustCompile(`://[^/\s:"']*:((?:[^"\\]|\\.)+)@`)
	urlInLine    = regexp.MustCompile(`://[^/\s:"']*:(.+)@`)
	// parameter is a name in a query or in a connection string, up to its value.
	parameter = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_.-]*)\s*(?:=\s*|:)`)
	argument  = regexp.MustCompile(`^(?:'(?:[^'\\]|\\.)*'?|[^\s&;,"'#]+)`)
	quoted    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	backticks = regexp.MustCompile("`.*`")
)

// span is part of a line, from and to in characters from 0.
type span struct{ from, to int }

// inText finds the secrets that stand in a text, whatever it belongs to: passwords of
// URLs, which url matches, and the values of parameters.
func inText(text string, url *regexp.Regexp) []span {
	var list []span
	add := func(from, to int) { list = append(list, span{from, to}) }
	for _, m := range url.FindAllStringSubmatchIndex(text, -1) {
		add(m[2], m[3])
	}
	for _, m := range parameter.FindAllStringSubmatchIndex(text, -1) {
		if value := argument.FindStringIndex(text[m[1]:]); value != nil && secretWord(text[m[2]:m[3]]) {
			add(m[1], m[1]+value[1])
		}
	}
	return inCharacters(text, merged(list))
}

// inCharacters counts spans in characters that were in bytes and in order.
func inCharacters(text string, list []span) []span {
	result := make([]span, 0, len(list))
	at, characters := 0, 0
	upTo := func(n int) int {
		characters += utf8.RuneCountInString(text[at:n])
		at = n
		return characters
	}
	for _, s := range list {
		result = append(result, span{upTo(s.from), upTo(s.to)})
	}
	return result
}

// hideInText hides the secrets that stand in a text.
func hideInText(s string) string {
	line, _, _ := hide([]rune(s), inText(s, urlInMessage), 0, 0)
	return string(line)
}

// quotesSecret reports whether an error about text quotes a part of it that is hidden.
func quotesSecret(message, text string) bool {
	shown := hideInText(text)
	return slices.ContainsFunc(quoted.FindAllString(message, -1), func(q string) bool {
		part, err := strconv.Unquote(q)
		return err != nil || !strings.Contains(shown, part)
	})
}

// hideQuoted hides what a message about a secret value quotes of it.
func hideQuoted(message, value string) string {
	message = backticks.ReplaceAllString(message, hidden)
	return quoted.ReplaceAllStringFunc(message, func(q string) string {
		if part, err := strconv.Unquote(q); err == nil && !strings.Contains(value, part) {
			return q
		}
		return hidden
	})
}

// merged puts spans in order and makes one of those that touch.
func merged(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return a.from - b.from })
	var result []span
	for _, s := range list {
		if last := len(result) - 1; last >= 0 && s.from <= result[last].to {
			result[last].to = max(result[last].to, s.to)
		} else if s.from < s.to {
			result = append(result, s)
		}
	}
	return result
}

// hide replaces the spans of a line, which are in order, and moves column (from 0) and
// width along with the characters that they mark.
func hide(line []rune, secrets []span, column, width int) ([]rune, int, int) {
	var masked []rune
	at, toColumn, toWidth, within := 0, column, width, false
	for _, s := range secrets {
		s.to = min(s.to, len(line))
		if s.from >= s.to {
			continue
		}
		masked = append(masked, line[at:s.from]...)
		switch grown := len(hidden) - (s.to - s.from); {
		case column >= s.to:
			toColumn += grown
		case column >= s.from:
			toColumn, toWidth, within = len(masked), len(hidden), true
		case column+width > s.from && !within:
			toWidth = max(toWidth+grown, 1)
		}
		masked = append(masked, []rune(hidden)...)
		at = s.to
	}
	return append(masked, line[at:]...), toColumn, toWidth
}
