package strictyaml

import (
	"errors"
	"fmt"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// plant is a configuration with everything that a section can have.
type plant struct {
	Name    string            `yaml:"name"`
	Pump    pump              `yaml:"pump"`
	Spare   *pump             `yaml:"spare,omitempty"`
	Pumps   []pump            `yaml:"pumps,omitempty"`
	Labels  map[string]string `yaml:"labels,omitempty"`
	Claims  map[string]any    `yaml:"claims,omitempty"`
	Gates   []*gate           `yaml:"gates,omitempty"`
	Hidden  string            `yaml:"-"`
	Numbers []int             `yaml:"numbers,omitempty"`
}

type pump struct {
	Power    int            `yaml:"power"`
	Small    uint8          `yaml:"small"`
	Ratio    float64        `yaml:"ratio"`
	On       bool           `yaml:"on"`
	Pause    model.Duration `yaml:"pause"`
	Tank     bytesize.Size  `yaml:"tank"`
	Maker    maker          `yaml:"maker"`
	internal int
}

func (p *pump) SetDefaults() { p.Power = 5 }

func (p *pump) Validate() error {
	var errs []error
	if p.Power > 100 {
		errs = append(errs, fielderror.Errorf("power", "must be at most 100, is %d", p.Power))
	}
	if p.Ratio < 0 {
		errs = append(errs, errors.New("ratio: must not be negative"))
	}
	if p.Pause > 0 && !p.On {
		errs = append(errs, errors.New("strange: a pump that is off does not pause"))
	}
	p.internal++
	return errors.Join(errs...)
}

// maker is a value with its own errors.
type maker struct{ name string }

func (m *maker) UnmarshalText(text []byte) error {
	if string(text) == "nobody" {
		return fmt.Errorf("%q makes no pumps", text)
	}
	m.name = string(text)
	return nil
}

func (m maker) MarshalText() ([]byte, error) { return []byte(m.name), nil }

// Expected says what a maker is.
func (maker) Expected() string { return "the name of a maker" }

// gate has keys beside its fields, and inlined ones.
type gate struct {
	ID     string `yaml:"id"`
	Access `yaml:",inline"`
	kinds  map[string]*pump
}

// Access is inlined.
type Access struct {
	User     string                `yaml:"user,omitempty"`
	Password commonconfig.Secret   `yaml:"password,omitempty"`
	URL      commonconfig.URL      `yaml:"url,omitempty"`
	Headers  *commonconfig.Headers `yaml:"headers,omitempty"`
}

func (g *gate) ExtraKeys() []string { return []string{"left", "right"} }

func (g *gate) Extra(key string, create bool) any {
	if g.kinds[key] == nil {
		if !create {
			return nil
		}
		if g.kinds == nil {
			g.kinds = map[string]*pump{}
		}
		g.kinds[key] = &pump{Power: 7}
	}
	return g.kinds[key]
}

// decode reads a plant and checks its pumps, as a configuration would.
func decode(text string) (*plant, error) {
	p := &plant{Name: "unnamed", Pump: pump{Power: 1}}
	d := Parse("plant.yaml", []byte(text))
	d.Decode(p)
	d.Report(CheckFields(p))
	for i := range p.Pumps {
		d.Report(Check(fmt.Sprintf("pumps[%d]", i), &p.Pumps[i]))
	}
	return p, d.Err()
}
