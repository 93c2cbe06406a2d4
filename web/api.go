package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// status serves GET /api/v1/status: what the page shows, as JSON.
func (s *Site) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.watch.look())
}

// explained serves GET /api/v1/explain: what becomes of a series.
func (s *Site) explained(w http.ResponseWriter, r *http.Request) {
	query := strings.TrimSpace(r.FormValue("series"))
	if query == "" {
		refuse(w, errors.New(`which series? Add the parameter series, such as up{job="x"}`))
		return
	}
	e, err := s.explain(query)
	if err != nil {
		refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, e)
}

func refuse(w http.ResponseWriter, err error) {
	writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away
}

// explain asks the gateway and adds at which rate the series is sent now.
func (s *Site) explain(query string) (Explanation, error) {
	if s.o.Explain == nil {
		return Explanation{}, errors.New("this gateway cannot tell")
	}
	e, err := s.o.Explain(query)
	if err != nil {
		return e, err
	}
	p := s.watch.look()
	for i := range e.Routes {
		r := &e.Routes[i]
		if !r.Takes {
			continue
		}
		r.Rate = 1
		sampling := p.sampling(r.Backend)
		if !r.Sampling || sampling == nil {
			continue
		}
		switch {
		case r.Protected:
			r.Why = "protected series are always sent"
			continue
		case sampling.Shadow:
			r.Why = "shadow mode: nothing is withheld"
			continue
		case sampling.Since == nil:
			r.Why = "nothing is withheld at present"
			continue
		}
		r.Why = sampling.Why
		for _, c := range sampling.Classes {
			if c.Name == r.Class {
				r.Rate = c.Share
			}
		}
	}
	return e, nil
}
