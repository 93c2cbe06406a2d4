package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
	"github.com/sluice-metrics/sluice/probe/internal/failure"
)

// Kinds of information that need a permission: keys of Reading.Privileged.
const (
	kindGroups = "groups"
	kindTopics = "topics"
)

// Prober reads the consumer groups of one Kafka cluster.
type Prober struct {
	address string
	groups  []string
	options []kgo.Opt
	client  *kadm.Client // nil: not started
}

var _ probe.Prober = (*Prober)(nil)

// New makes the Prober of a cluster. It opens no connection. The configuration has to be
// valid.
func New(c Config) (*Prober, error) {
	var seeds []string
	for i, t := range c.Targets {
		d, err := format.Parse(string(t.DSN))
		if err != nil {
			return nil, fmt.Errorf("targets[%d].dsn: %w", i, err)
		}
		seeds = append(seeds, d.Address)
	}
	if len(seeds) == 0 {
		return nil, errors.New("targets is empty")
	}
	options, err := access(c.Targets[0], c.SASLMechanism)
	if err != nil {
		return nil, fmt.Errorf("targets[0]: %w", err)
	}
	return &Prober{
		address: seeds[0],
		groups:  slices.Clone(c.Groups),
		options: append(options,
			kgo.SeedBrokers(seeds...), kgo.ClientID("gateway-probe"),
			// The next probe tries again; a probe that tries for long is a late one.
			kgo.RequestRetries(1),
		),
	}, nil
}

// access is how the brokers are reached: TLS and account of the first target.
func access(t Target, mechanism Mechanism) ([]kgo.Opt, error) {
	d, err := format.Parse(string(t.DSN))
	if err != nil {
		return nil, err
	}
	var options []kgo.Opt
	secure, err := d.TLSConfig(t.TLS)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		// The library sets the name of the broker that it dials.
		secure.ServerName = t.TLS.ServerName
		options = append(options, kgo.DialTLSConfig(secure))
	}
	if d.User != "" {
		options = append(options, kgo.SASL(login(d, t.PasswordFile, mechanism)))
	}
	return options, nil
}

// login reads the password at each login.
func login(d dsn.DSN, passwordFile string, mechanism Mechanism) sasl.Mechanism {
	if mechanism == MechanismPlain {
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := d.ReadPassword(passwordFile)
			return plain.Auth{User: d.User, Pass: password}, err
		})
	}
	account := func(context.Context) (scram.Auth, error) {
		password, err := d.ReadPassword(passwordFile)
		return scram.Auth{User: d.User, Pass: password}, err
	}
	if mechanism == MechanismScram256 {
		return scram.Sha256(account)
	}
	return scram.Sha512(account)
}

// Target is host:port of the first broker.
func (p *Prober) Target() string { return p.address }

// Engine is Kafka.
func (p *Prober) Engine() probe.Engine { return probe.EngineKafka }

// Close ends the client.
func (p *Prober) Close() error {
	if p.client != nil {
		p.client.Close()
		p.client = nil
	}
	return nil
}

// Probe reads commits first and ends of partitions afterwards, so that a group is never
// ahead of an end.
func (p *Prober) Probe(ctx context.Context) (probe.Reading, error) {
	start := time.Now()
	r, err := p.probe(ctx)
	if err != nil {
		var first *kgo.ErrFirstReadEOF
		return r, failure.Server{Name: "Kafka", Address: p.address, Grants: "docs/probe/kafka-acls.txt"}.Explain(err, failure.Finding{
			Within: time.Since(start), Foreign: errors.As(err, &first) || strings.Contains(err.Error(), "invalid large response size"),
			Denied: errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.IllegalSaslState),
		})
	}
	return r, nil
}

func (p *Prober) probe(ctx context.Context) (probe.Reading, error) {
	if p.client == nil {
		client, err := kgo.NewClient(p.options...)
		if err != nil {
			return probe.Reading{}, fmt.Errorf("set up the client: %w", err)
		}
		p.client = kadm.NewClient(client)
	}
	// The library keeps and changes the list that it is given.
	lags, err := p.client.Lag(ctx, slices.Clone(p.groups)...)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return probe.Reading{Privileged: map[string]bool{kindGroups: true, kindTopics: false}}, nil
	case refused(err):
		return probe.Reading{Privileged: map[string]bool{kindGroups: false}}, nil
	case err != nil:
		return probe.Reading{}, fmt.Errorf("read the consumer groups: %w", err)
	}
	return reading(lags)
}

// reading turns the answers into a Reading. A group that could not be read is left out;
// if the reason is not a lack of permission, the probe has failed.
func reading(lags kadm.DescribedGroupLags) (probe.Reading, error) {
	r := probe.Reading{
		Unit:       probe.UnitRecords,
		Privileged: map[string]bool{kindGroups: true, kindTopics: true},
	}
	ends := map[string]uint64{}
	for _, g := range lags.Sorted() {
		switch err := g.Error(); {
		case refused(err):
			r.Privileged[kindGroups] = false
			continue
		case errors.Is(err, kerr.GroupIDNotFound):
			continue // nobody has consumed in its name yet, or its commits have expired
		case err != nil:
			return probe.Reading{}, fmt.Errorf("read the consumer group %q: %w", g.Group, err)
		}
		group := probe.ConsumerGroup{Group: g.Group, Members: probe.Some(uint64(len(g.Members)))}
		for _, l := range g.Lag.Sorted() {
			switch {
			case refused(l.Err) || refused(l.End.Err):
				r.Privileged[kindTopics] = false
				continue
			case l.Err != nil || l.End.Err != nil || l.End.Offset < 0:
				continue // the partition is moving, or its topic is gone
			}
			if l.Commit.At < 0 && len(g.Members) == 0 {
				continue // not one of the group's partitions
			}
			ends[probe.PartitionName(l.Topic, l.Partition)] = uint64(l.End.Offset)
			partition := probe.ConsumerPartition{Topic: l.Topic, Partition: l.Partition}
			if l.Commit.At >= 0 {
				partition.Committed = probe.Some(uint64(l.Commit.At))
			}
			group.Partitions = append(group.Partitions, partition)
		}
		r.ConsumerGroups = append(r.ConsumerGroups, group)
	}
	for _, name := range slices.Sorted(maps.Keys(ends)) {
		r.Streams = append(r.Streams, probe.Stream{Name: name, Head: probe.Some(ends[name])})
	}
	return r, nil
}

// refused reports whether the brokers answered that the account may not ask.
func refused(err error) bool {
	var auth *kadm.AuthError
	return errors.As(err, &auth) ||
		errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) ||
		errors.Is(err, kerr.ClusterAuthorizationFailed)
}
