package receiver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

func oneV1() *prompb.WriteRequest {
	return &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("up"), Samples: sampleV1(1)}}}
}

func TestH2_ContentEncoding(t *testing.T) {
	g := newGate(t)
	for _, tc := range []struct {
		encoding string
		status   int
	}{
		{"snappy", 204},
		{"Snappy", 204},
		{"", 204}, // absent, as the reference takes it
		{"gzip", 415},
		{"zstd", 415},
		{"deflate", 415},
		{"identity", 415},
		{"snappy, gzip", 415},
		{"x-snappy-framed", 415},
	} {
		for name, contentType := range map[string]string{"rw1": typeV1, "rw2": typeV2} {
			t.Run(name+" "+tc.encoding, func(t *testing.T) {
				body := packV1(t, oneV1())
				if contentType == typeV2 {
					body = packV2(t, newV2().sample(1, "__name__", "up").done())
				}
				r := g.request(contentType, body)
				r.Header.Del("Content-Encoding")
				if tc.encoding != "" {
					r.Header.Set("Content-Encoding", tc.encoding)
				}
				a := g.do(r)
				require.Equal(t, tc.status, a.status, a.text)
				if tc.status == 204 {
					require.Len(t, g.kept(), 1)
					return
				}
				require.Contains(t, a.text, "snappy")
				require.Empty(t, g.kept())
			})
		}
	}
}

// A wrong type or encoding is told before anybody looks at the body.
func TestH2_CorruptBodyOfWrongType(t *testing.T) {
	g := newGate(t)
	r := g.request("application/json", []byte("\xff\xff\xff\xffnonsense"))
	require.Equal(t, 415, g.do(r).status)
	r = g.request(typeV2, []byte("\xff\xff\xff\xffnonsense"))
	r.Header.Set("Content-Encoding", "gzip")
	require.Equal(t, 415, g.do(r).status)
}

func TestH3_ContentType(t *testing.T) {
	const v2 = "io.prometheus.write.v2.Request"
	g := newGate(t)
	v1Body := packV1(t, oneV1())
	v2Body := packV2(t, newV2().sample(1, "__name__", "up").done())
	for contentType, want := range map[string]string{
		"":                                      "rw1",
		"application/x-protobuf":                "rw1",
		"Application/X-Protobuf":                "rw1",
		"application/x-protobuf; charset=utf-8": "rw1",
		"application/x-protobuf;proto=prometheus.WriteRequest":                  "rw1",
		"application/x-protobuf; proto=prometheus.WriteRequest":                 "rw1",
		"application/x-protobuf;proto=\"prometheus.WriteRequest\"":              "rw1",
		"application/x-protobuf;proto=" + v2:                                    "rw2",
		"application/x-protobuf ; proto=" + v2:                                  "rw2",
		"application/x-protobuf;  PROTO=" + v2:                                  "rw2",
		"application/x-protobuf;proto=\"" + v2 + "\"":                           "rw2",
		"application/x-protobuf;charset=utf-8;proto=" + v2:                      "rw2",
		"application/x-protobuf;proto=" + v2 + ";q=1":                           "rw2",
		"application/x-protobuf;proto=":                                         "415",
		"application/x-protobuf;proto":                                          "415",
		"application/x-protobuf;proto=" + strings.ToLower(v2):                   "415",
		"application/x-protobuf;proto=io.prometheus.write.v3.Request":           "415",
		"application/x-protobuf;proto=" + v2 + ";proto=prometheus.WriteRequest": "415",
		"application/x-protobuf, application/json":                              "415",
		"application/json":                                             "415",
		"application/vnd.google.protobuf":                              "415",
		"application/octet-stream":                                     "415",
		"text/plain; proto=" + v2:                                      "415",
		"application/x-protobuf;proto=prometheus.WriteRequest; proto=": "415",
		"/": "415",
	} {
		t.Run(contentType, func(t *testing.T) {
			body := v1Body
			if want == "rw2" {
				body = v2Body
			}
			a := g.do(g.request(contentType, body))
			if want == "415" {
				require.Equal(t, 415, a.status)
				require.Contains(t, a.text, "application/x-protobuf;proto="+v2)
				a.noWritten(t)
				require.Empty(t, g.kept())
				return
			}
			require.Equal(t, 204, a.status, a.text)
			k := g.keptOne()
			require.Equal(t, want == "rw2", k.v2 != nil)
			require.Equal(t, body, k.body)
		})
	}
}

func TestH4_EitherMessageCanBeSwitchedOff(t *testing.T) {
	for only, other := range map[string]string{"rw1": typeV2, "rw2": typeV1} {
		t.Run(only, func(t *testing.T) {
			g := newGate(t, func(s *setup) { s.receiver.Protocols = []string{only} })
			a := g.do(g.request(other, packV1(t, oneV1())))
			require.Equal(t, 415, a.status)
			require.Equal(t, only == "rw1", strings.Contains(a.text, "WriteRequest"), a.text)
			require.Equal(t, only == "rw2", strings.Contains(a.text, "write.v2"), a.text)
			require.Empty(t, g.kept())
			if only == "rw1" {
				a = g.sendV1(oneV1())
			} else {
				a = g.sendV2(newV2().sample(1, "__name__", "up").done())
			}
			require.Equal(t, 204, a.status)
		})
	}
}

func TestH7_VersionHeaderSelectsNothing(t *testing.T) {
	g := newGate(t)
	for _, version := range []string{"", "0.1.0", "2.0.0", "20.0.0", "0.0.0", "nonsense"} {
		for _, contentType := range []string{typeV1, typeV2} {
			body := packV1(t, oneV1())
			if contentType == typeV2 {
				body = packV2(t, newV2().sample(1, "__name__", "up").done())
			}
			r := g.request(contentType, body)
			if version != "" {
				r.Header.Set("X-Prometheus-Remote-Write-Version", version)
			}
			require.Equal(t, 204, g.do(r).status, "%s with version %q", contentType, version)
			require.Equal(t, body, g.keptOne().body)
		}
	}
}

func TestH11_Paths(t *testing.T) {
	g := newGate(t)
	for path, status := range map[string]int{
		"/api/v1/write":                         204,
		"/api/v1/push":                          204,
		"/api/prom/push":                        204,
		"/api/v1/receive":                       204,
		"/insert/0/prometheus/api/v1/write":     204,
		"/insert/12:7/prometheus/api/v1/write":  204,
		"/api/v1/write?extra_label=x":           204,
		"/insert/0/1/prometheus/api/v1/write":   404,
		"/api/v2/write":                         404,
		"/insert/12:7/prometheus/api/v1/import": 404,
	} {
		r := g.request(typeV1, packV1(t, oneV1()))
		u, err := r.URL.Parse(path)
		require.NoError(t, err)
		r.URL = u
		require.Equal(t, status, g.do(r).status, path)
		want := 0
		if status == 204 {
			want = 1
		}
		require.Len(t, g.kept(), want, path)
	}
}

func TestH12_OtherMethods(t *testing.T) {
	g := newGate(t)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		r := g.request(typeV2, packV1(t, oneV1()))
		r.Method = method
		a := g.do(r)
		require.Equal(t, 405, a.status, method)
		require.Equal(t, "POST", a.header.Get("Allow"), method)
		a.noWritten(t)
	}
	require.Empty(t, g.kept())
	require.Equal(t, 6.0, g.counter("sluice_receiver_requests_total", "protocol", "unknown", "code", "405"))
}

// A 2.0 message under the type of 1.0 holds nothing that 1.0 knows: a 2xx would lose it.
func TestH3_V2UnderTheNameOfV1(t *testing.T) {
	g := newGate(t)
	for _, typ := range []string{typeV1, ""} {
		a := g.do(g.request(typ, packV2(t, everythingV2().done())))
		require.Equal(t, http.StatusBadRequest, a.status, "a 2xx, and nothing is kept")
		require.Contains(t, a.text, "not a prometheus.WriteRequest")
		require.Empty(t, g.kept())
	}
}

// What the gateway sent itself is refused; what others of its kind send is taken.
func TestRefusesItsOwnRequests(t *testing.T) {
	g := newGate(t)
	for process, status := range map[string]int{"this": 508, "another": 204, "": 204} {
		r := g.request(typeV1, packV1(t, oneV1()))
		r.Header.Set(remotewrite.ProcessHeader, process)
		a := g.do(r)
		require.Equal(t, status, a.status, a.text)
	}
	require.Len(t, g.kept(), 2)
}
