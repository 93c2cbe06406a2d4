package gateway

import (
	"context"
	"fmt"

	"github.com/prometheus/common/version"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-metrics/sluice/config"
)

// tracer returns what makes the spans of leases, and how to end it; a nil Tracer where
// spans are not asked for.
func (g *Gateway) tracer(c *config.Tracing) (trace.Tracer, func(context.Context) error, error) {
	if c == nil {
		return nil, func(context.Context) error { return nil }, nil
	}
	e, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(c.Endpoint))
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(e), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "sluice"),
		attribute.String("service.instance.id", g.address()),
		attribute.String("service.version", version.Version),
	)))
	return p.Tracer("github.com/sluice-metrics/sluice"), p.Shutdown, nil
}
