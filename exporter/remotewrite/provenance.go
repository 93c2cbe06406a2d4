package remotewrite

import (
	"strconv"

	"github.com/prometheus/common/config"
)

// provenanceHeader tells the backend who thinned what it is sent, and how much:
//
//	x-dataprovenance: <identity>;sample=<kept share>;mask=<names of masked labels>
//
// The identity is the SPIFFE id of the client certificate or, without one, the instance;
// the kept share is from 0 to 1 with four decimals. No labels are masked.
const provenanceHeader = "X-Dataprovenance"

func provenance(identity string, kept float64) string {
	return identity + ";sample=" + strconv.FormatFloat(kept, 'f', 4, 64) + ";mask="
}

// identity is who the backend knows the gateway as: the SPIFFE id of the client
// certificate, else the instance.
func identity(c *config.TLSConfig, instance string) (string, error) {
	leaf, err := clientCertificate(c)
	if err != nil || leaf == nil {
		return instance, err
	}
	for _, u := range leaf.URIs {
		if u.Scheme == "spiffe" {
			return u.String(), nil
		}
	}
	return instance, nil
}
