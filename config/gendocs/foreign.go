package main

// kinds describes the keys that are kinds, by the section that they are of.
var kinds = map[string]string{
	"Backend.remote_write": "Makes it a backend that takes Prometheus remote write 1.0 or 2.0 by HTTP: Prometheus, Mimir, Thanos, VictoriaMetrics and others.",
	"Backend.tsdb":         "Makes it a store inside of Sluice, with the Prometheus query API on Sluice's own port.",

	"Cluster.postgres": "The servers are PostgreSQL 13 or newer.",
	"Cluster.mariadb":  "The servers are MariaDB 10.5 or newer.",
	"Cluster.mysql":    "The servers are MySQL 8; written from its documentation.",
	"Cluster.redis":    "The servers are Redis 7: replication, and groups of streams.",
	"Cluster.etcd":     "The servers are members of an etcd cluster.",
	"Cluster.kafka":    "The servers are brokers of a Kafka cluster: consumer groups.",

	"Lease.etcd":     "Leases are keys of an etcd cluster, kept alive. They have fencing tokens.",
	"Lease.etcdcas":  "As etcd, with a lease of its own for each acquisition: slower, and independent of what else the process keeps alive.",
	"Lease.redis":    "Leases are keys of one Redis. They have fencing tokens, as long as it keeps its data.",
	"Lease.redlock":  "Leases are keys of several independent Redis. They have no fencing tokens: for efficiency only.",
	"Lease.postgres": "Leases are rows of a PostgreSQL table. They have fencing tokens.",
	"Lease.local":    "Leases hold in this process alone.",
}

// foreign describes the keys whose structs belong to other modules; an empty text
// leaves a key out of the reference.
var foreign = map[string]string{
	"HTTPClientConfig.BasicAuth":       "HTTP basic authentication. At most one of `basic_auth`, `authorization` and `oauth2` can be given.",
	"HTTPClientConfig.Authorization":   "The `Authorization` header of every request.",
	"HTTPClientConfig.OAuth2":          "OAuth 2.0 client credentials; tokens are fetched and renewed as needed.",
	"HTTPClientConfig.BearerToken":     "",
	"HTTPClientConfig.BearerTokenFile": "",
	"HTTPClientConfig.TLSConfig":       "TLS towards the backend.",
	"HTTPClientConfig.FollowRedirects": "Follow redirects of the backend.",
	"HTTPClientConfig.EnableHTTP2":     "Use HTTP/2 where the backend offers it.",
	"HTTPClientConfig.HTTPHeaders":     "Headers with several values, or with values that are secrets or stand in files.",

	"ProxyConfig.ProxyURL":             "Proxy that requests go through. A password in it is not shown.",
	"ProxyConfig.NoProxy":              "Comma-separated hosts, domains and networks that are reached without the proxy.",
	"ProxyConfig.ProxyFromEnvironment": "Take the proxy from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.",
	"ProxyConfig.ProxyConnectHeader":   "Headers for the proxy's CONNECT requests: a list of values for each name.",

	"BasicAuth.Username":     "User name.",
	"BasicAuth.UsernameFile": "File that holds the user name; read for each request.",
	"BasicAuth.UsernameRef":  "",
	"BasicAuth.Password":     "Password.",
	"BasicAuth.PasswordFile": "File that holds the password; read for each request.",
	"BasicAuth.PasswordRef":  "",

	"Authorization.Type":            "Scheme of the header; `Bearer` when it is left out.",
	"Authorization.Credentials":     "What follows the scheme, such as a token.",
	"Authorization.CredentialsFile": "File that holds it; read for each request.",
	"Authorization.CredentialsRef":  "",

	"OAuth2.ClientID":                 "Client id.",
	"OAuth2.ClientSecret":             "Client secret.",
	"OAuth2.ClientSecretFile":         "File that holds the client secret.",
	"OAuth2.ClientSecretRef":          "",
	"OAuth2.ClientCertificateKeyID":   "Key id in the header of the signed token (grant by JWT).",
	"OAuth2.ClientCertificateKey":     "Private key that signs the token (grant by JWT).",
	"OAuth2.ClientCertificateKeyFile": "File that holds the private key (grant by JWT).",
	"OAuth2.ClientCertificateKeyRef":  "",
	"OAuth2.GrantType":                "`client_credentials`, or `urn:ietf:params:oauth:grant-type:jwt-bearer`. Left out: the former.",
	"OAuth2.SignatureAlgorithm":       "`RS256`, `RS384` or `RS512` (grant by JWT). Left out: `RS256`.",
	"OAuth2.Iss":                      "Issuer in the token (grant by JWT). Left out: the client id.",
	"OAuth2.Audience":                 "Audience in the token (grant by JWT). Left out: the token URL.",
	"OAuth2.Claims":                   "More claims in the token (grant by JWT).",
	"OAuth2.Scopes":                   "Scopes that are asked for.",
	"OAuth2.TokenURL":                 "Where tokens are fetched.",
	"OAuth2.EndpointParams":           "More parameters for the token URL.",
	"OAuth2.TLSConfig":                "TLS towards the token URL.",

	"TLSConfig.CA":                 "Certificates of the authorities that may sign the server's, as PEM.",
	"TLSConfig.Cert":               "Client certificate, as PEM.",
	"TLSConfig.Key":                "Key of the client certificate, as PEM.",
	"TLSConfig.CAFile":             "File that holds the certificates of the authorities.",
	"TLSConfig.CertFile":           "File that holds the client certificate.",
	"TLSConfig.KeyFile":            "File that holds the key of the client certificate.",
	"TLSConfig.CARef":              "",
	"TLSConfig.CertRef":            "",
	"TLSConfig.KeyRef":             "",
	"TLSConfig.ServerName":         "Name that the server's certificate has to bear, where it is not the host of the URL.",
	"TLSConfig.InsecureSkipVerify": "Do not check the server's certificate.",
	"TLSConfig.MinVersion":         "Lowest version: `TLS10`, `TLS11`, `TLS12` or `TLS13`. Left out: `TLS12`.",
	"TLSConfig.MaxVersion":         "Highest version. Left out: `TLS13`.",

	"Header.Values":  "Values.",
	"Header.Secrets": "Values that are not shown.",
	"Header.Files":   "Files that hold one value each.",
}
