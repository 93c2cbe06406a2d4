package dashboards

import "strings"

// dress gives the panel its looks: units, colours, axes, legends.
func (e *encoder) dress(p *panel, out *filePanel) {
	defaults := object{
		"unit":       string(p.unit),
		"color":      object{"mode": "palette-classic"},
		"thresholds": e.thresholds(p.limits),
		"mappings":   mappings(p.states),
	}
	if !p.floorless {
		defaults["min"] = 0
	}
	if p.top != 0 {
		defaults["max"] = p.top
	}
	if p.nothing != "" {
		defaults["noValue"] = p.nothing
	}
	overrides := []object{}
	switch p.kind {
	case stat:
		overrides = dressStat(p, defaults, out)
	case timeSeries:
		overrides = dressTimeSeries(p, defaults, out)
	case table:
		overrides = e.dressTable(p, defaults, out)
	case stateTimeline:
		overrides = dressTimeline(defaults, out)
	}
	out.FieldConfig = object{"defaults": defaults, "overrides": overrides}
}

// thresholds are the steps of the alerts' limits. Where less is worse they are listed from
// the least on, and a step is good above the last of them.
func (e *encoder) thresholds(alerts []string) object {
	steps := []object{}
	for _, a := range alerts {
		l := e.o.threshold(a)
		if fallsToBad(a) {
			steps = append(steps, object{"color": string(l.severity.color()), "value": nil})
		}
	}
	for i, a := range alerts {
		l := e.o.threshold(a)
		if !fallsToBad(a) {
			if i == 0 {
				steps = append(steps, object{"color": string(neutral), "value": nil})
			}
			steps = append(steps, object{"color": string(l.severity.color()), "value": l.value})
			continue
		}
		if i+1 < len(alerts) {
			steps[i+1]["value"] = l.value
			continue
		}
		steps = append(steps, object{"color": string(neutral), "value": l.value})
	}
	if len(alerts) == 0 {
		steps = append(steps, object{"color": string(neutral), "value": nil})
	}
	return object{"mode": "absolute", "steps": steps}
}

func (s severity) color() color {
	if s == critical {
		return lost
	}
	return attention
}

// fallsToBad reports whether less is worse.
func fallsToBad(alert string) bool {
	return strings.HasPrefix(alert, "QueueFullIn") || alert == "SamplingActive" || alert == "CertificateExpires"
}

func fixed(c color) object { return object{"mode": "fixed", "fixedColor": string(c)} }

func override(refID string, properties ...object) object {
	return object{"matcher": object{"id": "byFrameRefID", "options": refID}, "properties": properties}
}

func property(id string, value any) object { return object{"id": id, "value": value} }

func mappings(states []state) []object {
	list := []object{}
	for i, s := range states {
		result := object{"text": s.text, "index": i}
		if s.color != noColor {
			result["color"] = string(s.color)
		}
		list = append(list, object{"type": "value", "options": object{s.value: result}})
	}
	return list
}

func dressStat(p *panel, defaults object, out *filePanel) []object {
	if len(p.limits) > 0 || len(p.states) > 0 {
		defaults["color"] = object{"mode": "thresholds"}
	}
	overrides := []object{}
	for i, q := range p.queries {
		var list []object
		if q.color != noColor {
			list = append(list, property("color", fixed(q.color)))
		}
		if q.unit != "" {
			list = append(list, property("unit", string(q.unit)))
		}
		if len(list) > 0 {
			overrides = append(overrides, override(ref(i), list...))
		}
	}
	textMode, graph := "auto", "area"
	switch {
	case p.names:
		textMode, graph = "name", "none"
	case len(p.queries) > 1, p.queries[0].now:
		textMode = "value_and_name"
	}
	for _, t := range out.Targets {
		if t.Instant {
			graph = "none"
		}
	}
	out.Options = object{
		"colorMode": "value", "graphMode": graph, "justifyMode": "auto", "orientation": "auto", "textMode": textMode,
		"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
	}
	return overrides
}

func dressTimeSeries(p *panel, defaults object, out *filePanel) []object {
	fill, stacking := 8, "none"
	if p.stacked {
		fill, stacking = 30, "normal"
	}
	line := "off"
	if len(p.limits) > 0 {
		line = "line"
	}
	defaults["custom"] = object{
		"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "spanNulls": false,
		"axisPlacement": "auto", "stacking": object{"mode": stacking, "group": "A"}, "thresholdsStyle": object{"mode": line},
	}
	overrides := []object{}
	for i, q := range p.queries {
		var list []object
		if q.color != noColor {
			list = append(list, property("color", fixed(q.color)))
		}
		if q.unit != "" {
			list = append(list, property("unit", string(q.unit)))
		}
		if q.top != 0 {
			list = append(list, property("max", q.top))
		}
		if q.right {
			list = append(list, property("custom.axisPlacement", "right"), property("custom.fillOpacity", 0))
		}
		if q.dashed {
			list = append(list, property("custom.lineStyle", object{"fill": "dash", "dash": []int{6, 6}}))
		}
		if len(list) > 0 {
			overrides = append(overrides, override(ref(i), list...))
		}
	}
	out.Options = object{
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
	return overrides
}

// valueField is what Grafana calls the value of a query after its table was joined with
// others.
func valueField(p *panel, query int) string {
	if len(p.queries) == 1 {
		return "Value"
	}
	return "Value #" + ref(query)
}

func (e *encoder) dressTable(p *panel, defaults object, out *filePanel) []object {
	defaults["custom"] = object{"align": "auto", "cellOptions": object{"type": "auto"}, "filterable": false}
	order, names := object{}, object{}
	exclude := object{"Time": true}
	shown := map[int]bool{}
	overrides := []object{}
	for i, c := range p.columns {
		field := e.o.label(c.label)
		if c.label == "" {
			field = valueField(p, c.query)
			shown[c.query] = true
		}
		order[field], names[field] = i, c.title
		var list []object
		if c.unit != "" {
			list = append(list, property("unit", string(c.unit)))
		}
		if len(c.limits) > 0 {
			list = append(list, property("thresholds", e.thresholds(c.limits)), property("color", object{"mode": "thresholds"}), property("custom.cellOptions", object{"type": "color-text"}))
		}
		if c.color != noColor {
			list = append(list, property("color", fixed(c.color)), property("custom.cellOptions", object{"type": "color-text"}))
		}
		if len(c.states) > 0 {
			list = append(list, property("mappings", mappings(c.states)), property("custom.cellOptions", object{"type": "color-text"}))
		}
		if p.link != nil && c.label == p.link.variable {
			list = append(list, property("links", []object{{"title": p.link.title, "url": e.linkURL(p.link), "targetBlank": false}}))
		}
		if len(list) > 0 {
			overrides = append(overrides, object{"matcher": object{"id": "byName", "options": c.title}, "properties": list})
		}
	}
	for i := range p.queries {
		if !shown[i] {
			exclude[valueField(p, i)] = true
		}
	}
	if len(p.queries) > 1 {
		out.Transformations = append(out.Transformations, object{"id": "merge", "options": object{}})
	}
	out.Transformations = append(out.Transformations, object{
		"id": "organize", "options": object{"excludeByName": exclude, "indexByName": order, "renameByName": names},
	})
	out.Options = object{"showHeader": true, "cellHeight": "sm", "footer": object{"show": false, "reducer": []string{"sum"}, "fields": ""}, "sortBy": []object{}}
	return overrides
}

// linkURL leads to the dashboard with the reader's variables and time. __data.fields is
// the row that was clicked.
func (e *encoder) linkURL(l *link) string {
	return "/d/" + e.o.uid(l.dashboard) + "?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}&var-" + l.variable + "=${__value.text}"
}

func dressTimeline(defaults object, out *filePanel) []object {
	defaults["color"] = object{"mode": "thresholds"}
	defaults["custom"] = object{"lineWidth": 0, "fillOpacity": 70, "spanNulls": false}
	out.Options = object{
		"mergeValues": true, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8,
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": false},
		"tooltip": object{"mode": "single", "sort": "none"},
	}
	return []object{}
}
