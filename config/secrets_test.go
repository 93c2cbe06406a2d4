package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoErrorShowsASecret has files that are wrong in a line with a secret, next to it, or
// in the secret itself. HUN and TER2 are its halves; neither may be in what is printed.
func TestNoErrorShowsASecret(t *testing.T) {
	target := func(text string) string { return "clusters:\n- name: c\n  postgres:\n    targets:\n" + text }
	client := func(text string) string {
		return "backends:\n- name: b\n  remote_write:\n    url: http://h/w\n" + text
	}
	for name, text := range map[string]string{
		"dsn, other key of the line":     target("    - {dsn: \"postgres://probe:HUNTER2@h/d\", passwrd: x}\n"),
		"dsn of keywords":                target("    - {dsn: host=h user=u password=HUNTER2, bogus: x}\n"),
		"dsn of keywords in quotes":      target("    - {dsn: \"host=h password='HUN TER2'\", bogus: x}\n"),
		"dsn of keywords with a space":   target("    - {dsn: \"host=h password=HUN TER2\"}\n    - {dsn: \"host=h sslmode=no password=HUN TER2\"}\n"),
		"dsn with a slash":               target("    - {dsn: \"postgres://u:HUN/TER2@h/d\", bogus: x}\n"),
		"dsn with an at":                 target("    - {dsn: \"postgres://u:HUN@TER2@h/d\", bogus: x}\n"),
		"dsn with a space":               target("    - dsn: postgres://u:HUN TER2@h/d\n      bogus: x\n"),
		"dsn with a quote":               target("    - {dsn: 'postgres://u:HUN''TER2@h/d', bogus: x}\n"),
		"dsn with another quote":         target("    - dsn: \"postgres://u:HUN\"TER2@h/d\"\n"),
		"dsn with a comma":               target("    - {dsn: postgres://u:HUN,TER2@h/d, bogus: x}\n"),
		"dsn with a comma and no more":   target("    - {dsn: host=h password=HUN,TER2}\n"),
		"dsn with a brace":               target("    - {dsn: host=h password=HUN}TER2, bogus: x}\n"),
		"dsn cannot be read":             target("    - dsn: \"host=h port=x password=HUNTER2\"\n"),
		"dsn in the next line":           target("    - dsn:\n        \"host=h port=x password=HUNTER2\"\n"),
		"dsn in the next line, plain":    target("    - dsn:\n        host=h port=x passwd=HUNTER2\n"),
		"dsn folded":                     target("    - dsn: >-\n        host=h port=x\n        passwd=HUNTER2\n      bogus: x\n"),
		"dsn folded, not YAML":           target("    - dsn: >-\n        host=h\n        password=HUNTER2\n       bogus: [\n"),
		"dsn folded, control character":  target("    - dsn: |\n        host=h\n        HUN\x01TER2\n"),
		"dsn in quotes over lines":       target("    - dsn: \"host=h\n HUN\tTER2 \x02\"\n"),
		"dsn never closed":               target("    - dsn: \"host=h password=HUN\n      TER2\n      bogus: x\n"),
		"dsn in braces over lines":       target("    - {\n        dsn:\n          \"host=h passwd=HUNTER2\", bogus: x}\n"),
		"dsn as a list":                  target("    - dsn:\n      - HUNTER2\n      - host=h\tHUN: [TER2\n"),
		"dsn as a section":               target("    - {dsn: {HUN: TER2}}\n"),
		"dsn behind a tag":               target("    - {dsn: !!str HUNTER2, bogus: x}\n"),
		"dsn behind an explicit key":     target("    - ? dsn\n      : host=h port=x passwd=HUNTER2\n      bogus: x\n"),
		"dsn as JSON":                    target("    - {\"dsn\":\"host=h passwd=HUNTER2\",\"bogus\":1}\n"),
		"dsn at an anchor":               "x: &d host=h passwd=HUNTER2\n" + target("    - {dsn: *d, bogus: x}\n"),
		"dsn misspelt":                   target("    - {dns: host=h passwd=HUNTER2, bogus: x}\n"),
		"dsn without a space":            target("    - dsn:host=h passwd=HUNTER2\n"),
		"dsn is not unique":              target("    - dsn: host=h password=HUNTER2\n    - dsn: host=h password=HUNTER2\n"),
		"target as a text":               target("    - postgres://u:HUNTER2@h/d\n"),
		"targets as a text":              "clusters:\n- name: c\n  postgres:\n    targets: postgres://u:HUNTER2@h/d\n",
		"address under another key":      target("    - {address: \"postgres://u@corp:HUN/TER2@h/d\"}\n"),
		"uri":                            target("    - {uri: host=h HUNTER2}\n"),
		"query":                          target("    - {address: \"postgres://h/d?sslmode=x&password=HUNTER2\"}\n"),
		"mariadb":                        "clusters:\n- name: c\n  mariadb:\n    targets: [{dsn: \"mariadb://u:HUN%TER2@h\"}, {dsn: u:HUNTER2@tcp(h)/}]\n",
		"lease":                          "lease:\n  postgres: {dsn: \"host=h port=x password=HUNTER2\"}\n",
		"lease, endpoints":               "lease:\n  etcd: {endpoints: [\"http://u:HUN,TER2@h:1/x\"]}\n",
		"lease, password":                "lease:\n  redis: {address: h, password: HUN, TER2}\n",
		"tracing":                        "tracing: {endpoint: \"ftp://u:HUNTER2@h?api_key=HUNTER2\"}\n",
		"url with a port that is none":   "backends:\n- name: b\n  remote_write: {url: \"http://u:HUN/TER2@h/w\"}\n",
		"url with a space":               "backends:\n- name: b\n  remote_write: {url: \"http://u:HUN TER2@h/w\"}\n",
		"url with an escape":             "backends:\n- name: b\n  remote_write: {url: \"http://u:HUN%TER2@h/w\"}\n",
		"url of another scheme":          "backends:\n- name: b\n  remote_write: {url: \"ftp://h/w?token=HUNTER2&x=1\"}\n",
		"url with a parameter":           "backends:\n- name: b\n  remote_write: {url: \"http://h/w?x=1&access_token=HUNTER2\", bogus: 1}\n",
		"proxy":                          client("    proxy_url: \"http://u:HUN TER2@p:1\"\n"),
		"headers":                        client("    headers: {Authorization: Bearer HUNTER2, Content-Type: x}\n"),
		"headers, several":               client("    headers: {X-Api-Key: HUNTER2, Cookie: a=HUNTER2, Proxy-Authorization: HUNTER2, Content-Type: x}\n"),
		"headers, lower case":            client("    headers: {authorization: Bearer HUNTER2, Content-Type: x}\n"),
		"headers with a line break":      client("    headers: {Authorization: \"Bearer HUN\\nTER2\"}\n"),
		"headers with values":            client("    http_headers: {Authorization: {values: [Bearer HUNTER2], bogus: 1}}\n"),
		"headers with values, in a list": client("    http_headers:\n      Authorization:\n        values:\n        - [HUNTER2]\n        bogus: 1\n"),
		"headers with values, not YAML":  client("    http_headers:\n      Authorization:\n        values: [Bearer HUNTER2]]\n"),
		"headers with values, no list":   client("    http_headers: {Authorization: {values: Bearer HUNTER2}}\n"),
		"header of a proxy":              client("    proxy_connect_header: {Proxy-Authorization: Basic HUNTER2}\n"),
		"authorization":                  client("    authorization: {type: Bearer, credentials: HUNTER2, bogus: 1}\n"),
		"authorization, a text":          client("    authorization: Bearer HUNTER2\n"),
		"authorization, next line":       client("    authorization:\n      Bearer HUNTER2\n"),
		"authorization, misspelt":        client("    authorization: {type: Bearer, value: HUNTER2}\n"),
		"authorization, open":            client("    authorization: {type: Bearer, value: HUNTER2\n"),
		"basic_auth":                     client("    basic_auth: {username: u, password: HUN\"TER2, bogus: 1}\n"),
		"basic_auth, JSON":               client("    basic_auth: {\"username\":\"u\",\"password\":\"HUNTER2\",\"bogus\":1}\n"),
		"basic_auth, no space":           client("    basic_auth: {password:HUNTER2}\n"),
		"basic_auth, section is text":    client("    basic_auth: password:HUNTER2\n"),
		"oauth2":                         client("    oauth2: {client_id: i, client_secret: HUN'TER2, endpoint_params: {password: HUNTER2, client_assertion: HUNTER2}, bogus: 1}\n"),
		"tls key":                        client("    tls_config:\n      key: |\n        -----BEGIN\n        HUNTER2\n      bogus: 1\n"),
		"tls key, not indented":          client("    tls_config:\n      key: |\n        -----BEGIN\n    HUNTER2\n    -----END: [\n"),
		"list in brackets over lines":    client("    http_headers: {X-Token: {values: [\n\"HUN\",\n\"TER2\"\n      ], bogus: 1}, bogus: 1}\n"),
		"password begins with a star":    client("    basic_auth: {username: u, password: *HUNTER2, bogus: 1}\n"),
		"password begins with a star 2":  client("    basic_auth:\n      password: *HUNTER2\n"),
		"password begins with an and":    client("    basic_auth: {username: u, password: &HUN TER2, bogus: 1}\n"),
		"password begins with a mark":    client("    basic_auth: {username: u, password: !HUN TER2, bogus: 1}\n"),
		"password begins with a mark 2":  client("    basic_auth:\n      password: !HUNTER2\n      bogus: 1\n"),
		"password begins with an at":     client("    basic_auth:\n      password: @HUNTER2\n"),
		"password begins with %":         client("    basic_auth:\n      password: %HUNTER2\n"),
		"password ends in a colon":       client("    basic_auth:\n      password: HUN: TER2\n"),
		"password with a bad escape":     client("    basic_auth:\n      password: \"HUN\\qTER2\"\n"),
		"password with a bad tag":        client("    basic_auth:\n      password: !<HUN TER2\n"),
		"password as a block header":     client("    basic_auth:\n      password: |HUNTER2\n"),
		"claim of another type":          client("    oauth2: {client_id: i, token_url: 'http://h', claims: {password: !!int HUNTER2, x: {api_key: !!float HUNTER2}}}\n"),
		"comment":                        "shutdown_timeout: 0s # password: HUNTER2\n",
		"at the top":                     "db_password: HUNTER2\n",
	} {
		t.Run(name, func(t *testing.T) {
			text = strings.NewReplacer("HUN", "hUn", "TER2", "tEr").Replace(text)
			_, err := Parse("f.yaml", []byte(text))
			require.Error(t, err)
			require.NotContains(t, err.Error(), "hUn")
			require.NotContains(t, err.Error(), "tEr")
		})
	}
}
