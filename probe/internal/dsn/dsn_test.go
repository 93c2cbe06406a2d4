package dsn_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
)

var format = dsn.Format{Schemes: []string{"redis", "rediss"}, Port: "6379", Named: true}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want dsn.DSN
	}{
		{"redis://h", dsn.DSN{Scheme: "redis", Address: "h:6379"}},
		{"rediss://u:p%40ss@h:1/3", dsn.DSN{Scheme: "rediss", Address: "h:1", User: "u", Password: "p@ss", Name: "3"}},
		{"redis://u@[::1]/", dsn.DSN{Scheme: "redis", Address: "[::1]:6379", User: "u"}},
	} {
		got, err := format.Parse(c.text)
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, got)
	}
}

func TestErrorsSayWhatIsWrongAndHoldNoPassword(t *testing.T) {
	nameless := dsn.Format{Schemes: []string{"mariadb", "mysql"}, Port: "3306"}
	for text, want := range map[string]string{
		"":                              "is missing; give an address such as mariadb://probe@10.0.0.1:3306",
		"mariadb://u:hush hush@h\x01:1": "is not an address such as",
		"mariadb://u:hush@h:port":       "is not an address such as",
		"postgres://u:hush@h":           "must start with mariadb:// or mysql://",
		"u:hush@tcp(h:3306)/":           "must start with mariadb:// or mysql://",
		"mariadb://u:hush@":             "names no host",
		"mariadb://u:hush@h:0":          "names the port 0",
		"mariadb://u:hush@h:70000":      "names the port 70000",
		"mariadb://u:hush@h?tls=hush":   "takes no parameters",
		"mariadb://u:hush@h/app":        "takes nothing after the port",
	} {
		_, err := nameless.Parse(text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "hush", text)
	}
}

func TestValidateTargetsNamesEveryFault(t *testing.T) {
	err := dsn.ValidateTargets(format, []dsn.Target{
		{Text: "redis://a"},
		{Text: "redis://u:p@b", PasswordFile: "f"},
		{Text: "redis://a:6379", TLS: &config.TLSConfig{CertFile: "c"}},
		{},
	})
	var paths []string
	for _, e := range fielderror.List(err) {
		paths = append(paths, e.Path)
	}
	require.Equal(t, []string{"targets[1].password_file", "targets[2].tls_config", "targets[2].dsn", "targets[3].dsn"}, paths)
	require.ErrorContains(t, dsn.ValidateTargets(format, nil), "targets: is empty")
}

func TestReadPassword(t *testing.T) {
	d := dsn.DSN{Password: "in the DSN"}
	got, err := d.ReadPassword("")
	require.NoError(t, err)
	require.Equal(t, "in the DSN", got)

	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("from the file\n"), 0o600))
	got, err = d.ReadPassword(file)
	require.NoError(t, err)
	require.Equal(t, "from the file", got)

	_, err = d.ReadPassword(file + ".gone")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTLSConfig(t *testing.T) {
	d := dsn.DSN{Address: "db.example:1"}
	none, err := d.TLSConfig(nil)
	require.NoError(t, err)
	require.Nil(t, none)

	c, err := d.TLSConfig(&config.TLSConfig{})
	require.NoError(t, err)
	require.Equal(t, "db.example", c.ServerName)

	c, err = d.TLSConfig(&config.TLSConfig{ServerName: "other"})
	require.NoError(t, err)
	require.Equal(t, "other", c.ServerName)

	_, err = d.TLSConfig(&config.TLSConfig{CAFile: filepath.Join(t.TempDir(), "gone")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A DSN is shown without its password, whichever way it is printed.
func TestTextHidesThePassword(t *testing.T) {
	for text, want := range map[dsn.Text]string{
		"":                     "",
		"redis://u@h:1/3":      "redis://u@h:1/3",
		"redis://u:hush@h:1/3": "redis://u:xxxxx@h:1/3",
		"redis://u:hu%sh@h":    "<secret>",
		"u:hush@tcp(h:3306)/":  "<secret>",
	} {
		require.Equal(t, want, text.String())
		shown, err := text.MarshalYAML()
		require.NoError(t, err)
		require.Equal(t, want, shown)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			require.NotContains(t, fmt.Sprintf(verb, struct{ D dsn.Text }{text}), "hush")
		}
	}
}
