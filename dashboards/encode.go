package dashboards

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// What Grafana stores, as far as it is used here. Fields are in the order of the files.
const (
	schemaVersion = 38 // of Grafana 9.5; younger ones migrate it when they load it
	pluginVersion = "9.5.21"
)

type object map[string]any

var source = object{"type": "prometheus", "uid": "${datasource}"}

type file struct {
	UID           string   `json:"uid"`
	Title         string   `json:"title"`
	Description   string   `json:"description"`
	Tags          []string `json:"tags"`
	SchemaVersion int      `json:"schemaVersion"`
	Version       int      `json:"version"`
	Editable      bool     `json:"editable"`
	GraphTooltip  int      `json:"graphTooltip"`
	Refresh       string   `json:"refresh"`
	Time          object   `json:"time"`
	Timezone      string   `json:"timezone"`
	Links         []object `json:"links"`
	Templating    object   `json:"templating"`
	Annotations   object   `json:"annotations"`
	Panels        []any    `json:"panels"`
}

type filePanel struct {
	ID              int          `json:"id"`
	Type            string       `json:"type"`
	Title           string       `json:"title"`
	Description     string       `json:"description"`
	GridPos         place        `json:"gridPos"`
	Repeat          string       `json:"repeat,omitempty"`
	RepeatDirection string       `json:"repeatDirection,omitempty"`
	MaxPerRow       int          `json:"maxPerRow,omitempty"`
	PluginVersion   string       `json:"pluginVersion"`
	Datasource      object       `json:"datasource"`
	Targets         []fileTarget `json:"targets"`
	Transformations []object     `json:"transformations,omitempty"`
	FieldConfig     object       `json:"fieldConfig"`
	Options         object       `json:"options"`
}

type fileRow struct {
	ID        int    `json:"id"`
	Type      string `json:"type"`
	Title     string `json:"title"`
	Collapsed bool   `json:"collapsed"`
	GridPos   place  `json:"gridPos"`
	Repeat    string `json:"repeat,omitempty"`
	Panels    []any  `json:"panels"` // of a collapsed row; those of others follow it
}

type fileTarget struct {
	RefID        string `json:"refId"`
	Datasource   object `json:"datasource"`
	EditorMode   string `json:"editorMode"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
	Format       string `json:"format"`
	Instant      bool   `json:"instant"`
	Range        bool   `json:"range"`
}

// encoder writes one dashboard.
type encoder struct {
	o    *Options
	d    *dashboard
	last int // id that was given out
}

func encode(d *dashboard, o *Options) ([]byte, error) {
	e := encoder{o: o, d: d}
	f := file{
		UID: o.uid(d.name), Title: o.Prefix + ": " + d.title, Description: d.description, Tags: []string{o.tag()},
		SchemaVersion: schemaVersion, Version: 1, Editable: true, GraphTooltip: 1, Refresh: "30s",
		Time: object{"from": "now-1h", "to": "now"}, Timezone: "browser", Links: e.links(),
	}
	var err error
	if f.Templating, err = e.variables(); err != nil {
		return nil, err
	}
	if f.Annotations, err = e.annotations(); err != nil {
		return nil, err
	}
	if f.Panels, err = e.rows(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	j := json.NewEncoder(&b)
	j.SetEscapeHTML(false)
	j.SetIndent("", "  ")
	if err := j.Encode(f); err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.name, err)
	}
	return b.Bytes(), nil
}

func (e *encoder) id() int {
	e.last++
	return e.last
}

func (e *encoder) selection(scope func(string) []string) *selection {
	return &selection{o: e.o, scope: scope}
}

func (e *encoder) links() []object {
	return []object{
		{"type": "dashboards", "title": "Dashboards", "tags": []string{e.o.tag()}, "asDropdown": false, "keepTime": true, "includeVars": true, "targetBlank": false},
		{"type": "link", "title": "What to look at", "url": e.o.Source + "docs/dashboards.md#" + e.d.name, "icon": "doc", "targetBlank": true, "tooltip": "For whom this dashboard is and what it answers"},
		{"type": "link", "title": "Runbook", "url": e.o.Source + "docs/runbook.md", "icon": "doc", "targetBlank": true, "tooltip": "What to do when an alert fires"},
	}
}

func (e *encoder) variables() (object, error) {
	list := []object{{
		"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
		"description": "The Prometheus that has the gateways' metrics, or the gateway's own store", "refresh": 1, "hide": 0, "regex": "", "multi": false, "includeAll": false, "current": object{}, "options": []object{},
	}}
	for i := range e.d.variables {
		v := &e.d.variables[i]
		expr, err := e.selection(nil).values(v)
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: variable %s: %w", e.d.name, v.name, err)
		}
		o := object{
			"name": v.name, "label": v.label, "type": "query", "datasource": source,
			"query": object{"query": expr, "refId": "variable"}, "definition": expr,
			"refresh": 2, "sort": 1, "hide": 0, "regex": "", "multi": !v.single, "includeAll": !v.single, "current": object{}, "options": []object{},
		}
		if !v.single {
			o["allValue"] = ".*"
			o["current"] = object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
		}
		list = append(list, o)
	}
	return object{"list": list}, nil
}

func (e *encoder) annotations() (object, error) {
	list := []object{}
	for _, a := range e.d.annotations {
		s := e.selection(e.d.scope)
		expr, err := s.query(a.expr)
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: annotation %s: %w", e.d.name, a.name, err)
		}
		list = append(list, object{
			"name": a.name, "datasource": source, "enable": !a.hidden, "hide": false, "iconColor": string(a.color),
			"expr": expr, "titleFormat": s.legend(a.title), "textFormat": s.legend(a.text), "tagKeys": "", "step": "", "useValueForTime": a.isTime,
			"target": object{"refId": "annotation", "expr": expr, "interval": "", "legendFormat": ""},
		})
	}
	return object{"list": list}, nil
}

func (e *encoder) rows() ([]any, error) {
	out := []any{}
	var f flow
	for i := range e.d.rows {
		r := &e.d.rows[i]
		var head *fileRow
		if r.title != "" {
			f.end()
			head = &fileRow{ID: e.id(), Type: "row", Title: r.title, Collapsed: r.collapsed, GridPos: f.next(columns, 1), Repeat: r.repeat, Panels: []any{}}
			f.end()
			out = append(out, head)
		}
		inside := f // the panels of a collapsed row take no room
		for j := range r.panels {
			p, err := e.panel(&r.panels[j], r, &inside)
			if err != nil {
				return nil, fmt.Errorf("dashboard %s: panel %q: %w", e.d.name, r.panels[j].title, err)
			}
			if head != nil && r.collapsed {
				head.Panels = append(head.Panels, p)
				continue
			}
			out = append(out, p)
		}
		if !r.collapsed {
			inside.end()
			f = inside
		}
	}
	return out, nil
}

func (e *encoder) panel(p *panel, r *row, f *flow) (*filePanel, error) {
	scoped := slices.Clone(p.scoped)
	if r.repeat != "" {
		scoped = append(scoped, r.repeat)
	}
	if p.repeat != "" {
		scoped = append(scoped, p.repeat)
	}
	s := e.selection(func(metric string) []string { return append(slices.Clone(e.d.scope(metric)), scoped...) })
	out := &filePanel{
		ID: e.id(), Type: string(p.kind), Title: p.title, Description: p.description(), GridPos: f.next(p.width, p.height),
		Repeat: p.repeat, PluginVersion: pluginVersion, Datasource: source,
	}
	if p.repeat != "" {
		out.RepeatDirection, out.MaxPerRow = "h", 2
	}
	for i, q := range p.queries {
		expr, err := s.query(q.expr)
		if err != nil {
			return nil, err
		}
		format, instant := "time_series", p.kind == stat && q.instant()
		if p.kind == table {
			format, instant = "table", true
		}
		out.Targets = append(out.Targets, fileTarget{
			RefID: ref(i), Datasource: source, EditorMode: "code", Expr: expr, LegendFormat: s.legend(q.legend),
			Format: format, Instant: instant, Range: !instant,
		})
	}
	e.dress(p, out)
	return out, nil
}

func (p *panel) description() string {
	return p.shows + "\n\n**Good:** " + p.good + "\n\n**Otherwise:** " + p.act
}

// ref is the name of the query with the number.
func ref(i int) string { return string(rune('A' + i)) }
