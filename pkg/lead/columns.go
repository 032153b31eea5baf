package lead

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"herald/pkg/message"
	"herald/pkg/wire"
)

// Column says what an import made of one column of a file.
type Column struct {
	Name  string // as it stands in the file
	Field string // the field of a lead, custom_fields.NAME, or "" for a column that is left out
}

// customPrefix begins the name of a custom field where a field of a lead could stand.
const customPrefix = "custom_fields."

// columnNames are the names under which programs export the fields of a contact, in English, German, French and Spanish.
// They are compared as foldColumn leaves them. A field's own name needs no entry.
//
// The English ones are what the documentation of HubSpot, Mailchimp, Salesforce, Google Contacts, Outlook and Shopify
// lists; the others are what Outlook and Google write in these languages. Where an export has several columns for a field
// ("Email 1", "Email 2"), the first of the list that the file has wins.
var columnNames = map[string][]string{
	"id":         {"leadid"},
	"first_name": {"firstname", "givenname", "forename", "vorname", "prenom", "nombre", "nombredepila", "fname", "first", "vornamen", "rufname", "prenoms", "primernombre", "nombres"},
	"last_name":  {"lastname", "surname", "familyname", "nachname", "familienname", "nom", "nomdefamille", "apellido", "apellidos", "lname", "last", "zuname", "nomfamille", "primerapellido"},
	"full_name":  {"fullname", "name", "displayname", "contactname", "anzeigename", "vollstandigername", "nomcomplet", "nombrecompleto", "namefull", "vorundnachname", "nometprenom", "prenometnom", "nombreyapellido", "nombreyapellidos"},
	"email": {
		"email", "emailaddress", "mail", "mailaddress", "primaryemail", "email1value", "email1address", "email1", "emailadresse", "mailadresse",
		"adresseemail", "adressemail", "adressedemessagerie", "courriel", "correo", "correoelectronico", "direcciondecorreo",
		"direcciondecorreoelectronico",
		"emailid", "contactemail", "workemail", "businessemail", "useremail", "customeremail", "emailwork", "emailgeschaftlich", "emailprivat", "elektronischepostadresse", "adresseelectronique", "adressecourriel", "correoe", "mailempresa",
	},
	"phone": {
		"phone", "mobile", "mobilephone", "mobilephonenumber", "cell", "cellphone", "phonenumber", "primaryphone", "phone1value", "phone1",
		"telephone", "telephonenumber", "tel", "smsphonenumber", "defaultaddressphone", "businessphone", "homephone", "mobiltelefon",
		"mobilnummer", "handy", "handynummer", "telefon", "telefonnummer", "rufnummer", "portable", "telephoneportable",
		"numerodetelephone", "movil", "telefonomovil", "telefono", "numerodetelefono",
		"mobileno", "mobilenumber", "phoneno", "contactnumber", "cellnumber", "cellphonenumber", "cellular", "telno", "workphone", "phonework", "phonemobile", "mobil", "mobilfunk", "mobilfunknummer", "mobiltelefonnummer", "mobilrufnummer", "telefonmobil", "telefonnr", "telefongeschaftlich", "telefonprivat", "festnetz", "telephonemobile", "numerodemobile", "numerodeportable", "gsm", "telmobile", "celular", "telefonocelular", "numerodecelular", "numerodemovil",
	},
	"instagram_id": {"instagramid", "instagramuserid", "igsid"},
	"company": {
		"company", "companyname", "organization", "organisation", "organizationname", "organization1name", "accountname", "associatedcompany",
		"defaultaddresscompany", "firma", "unternehmen", "societe", "entreprise", "empresa", "compania",
		"companyorganization", "employer", "business", "businessname", "firmenname", "organisationsname", "raisonsociale", "nomdelasociete", "nomdelentreprise", "nombredelaempresa",
	},
	"title":             {"title", "jobtitle", "organizationtitle", "organization1title", "position", "stellenbezeichnung", "funktion", "poste", "fonction", "cargo", "puesto", "role", "beruf", "berufsbezeichnung", "jobbezeichnung", "titredeposte", "intituleduposte", "titulodelpuesto"},
	"status":            {"leadstatus", "contactstatus"},
	"source":            {"leadsource", "originalsource", "quelle"},
	"city":              {"city", "town", "mailingcity", "businesscity", "homecity", "defaultaddresscity", "address1city", "ort", "stadt", "wohnort", "ville", "ciudad", "locality", "commune", "localidad", "poblacion"},
	"state":             {"state", "province", "stateregion", "mailingstate", "mailingstateprovince", "businessstate", "defaultaddressprovincecode", "address1region", "bundesland", "provincia", "region", "kanton", "county", "departamento", "comunidadautonoma"},
	"country":           {"country", "countryregion", "mailingcountry", "businesscountryregion", "businesscountry", "defaultaddresscountrycode", "address1country", "land", "pays", "pais", "staat", "nation", "paisregion", "paysregion", "landregion"},
	"timezone":          {"timezone", "zeitzone", "fuseauhoraire", "zonahoraria"},
	"language":          {"language", "preferredlanguage", "locale", "sprache", "langue", "idioma", "lang", "sprachcode"},
	"assignee_id":       {"assigneeid", "ownerid", "contactownerid"},
	"tags":              {"tags", "tag", "labels", "categories", "schlagworter", "kategorien", "etiquettes", "categories", "etiquetas", "categorias", "etiketten", "motscles", "segments", "groups", "gruppen"},
	"created_at":        {"createdat", "createdate", "createddate", "created", "creationdate", "erstelltam", "creele", "datedecreation", "fechadecreacion"},
	"last_contacted_at": {"lastcontactedat", "lastcontacted", "lastactivitydate", "lastcontactdate"},
	"updated_at":        {"updatedat"},
}

// foldColumn reduces the name of a column to the letters and digits by which it is known: "E-Mail 1 - Value" is
// email1value, "Prénom" is prenom.
func foldColumn(name string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(message.Fold(name)) {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// knownColumn is a field of a lead under one of its column names. Lower ranks win over higher ones.
type knownColumn struct {
	field string
	rank  int
}

// knownColumns maps folded column names to fields.
var knownColumns = indexColumns()

func indexColumns() map[string]knownColumn {
	index := map[string]knownColumn{}
	for _, f := range fields {
		if f.parseCell == nil {
			continue
		}
		index[foldColumn(f.name)] = knownColumn{f.name, 0}
		for i, name := range columnNames[f.name] {
			if _, ok := index[name]; !ok {
				index[name] = knownColumn{f.name, i + 1}
			}
		}
	}
	return index
}

// known returns the field of a column by its name. The field's own name has the lowest rank.
func known(name string) (knownColumn, bool) {
	k, ok := knownColumns[foldColumn(name)]
	if name == k.field {
		k.rank = -1
	}
	return k, ok
}

// foreignID returns the name of a column called id whose first cell is no UUID: the id of another program, which is kept as
// a custom field. A column that the caller mapped keeps its mapping.
func foreignID(header []string, chosen map[string]string, first []string) (name string, ok bool) {
	for i, h := range header {
		name = strings.TrimSpace(h)
		if _, decided := chosen[name]; decided || foldColumn(name) != "id" || i >= len(first) {
			continue
		}
		if cell := strings.TrimSpace(first[i]); cell != "" {
			_, isUUID := wire.ParseUUID(cell)
			return name, !isUUID
		}
	}
	return "", false
}

// withChoice returns a mapping with one more column.
func withChoice(chosen map[string]string, name, field string) map[string]string {
	out := maps.Clone(chosen)
	if out == nil {
		out = map[string]string{}
	}
	out[name] = field
	return out
}

// findingFields are the fields by which a lead can be found or reached. A file needs a column of one of them.
var findingFields = []string{"id", "email", "phone", "instagram_id"}

// mapColumns decides what each column of a file becomes. chosen maps names of columns to fields, custom_fields.NAME or "",
// and takes precedence. The error is a message.Error at chosen's columns or at the header, line.
func mapColumns(header []string, chosen map[string]string, line int) ([]Column, error) {
	columns := make([]Column, len(header))
	seen := map[string]int{}
	for i, h := range header {
		columns[i].Name = strings.TrimSpace(h)
		if name := strings.TrimPrefix(columns[i].Name, customPrefix); utf8.RuneCountInString(name) > message.MaxFieldName {
			return nil, message.InvalidField(message.SlugTooLong, fmt.Sprintf("the name of column %d has more than %d characters", i+1, message.MaxFieldName), "body", line)
		}
		if !isText(h) {
			return nil, message.InvalidField(message.SlugValue, fmt.Sprintf("the name of column %d is not valid text", i+1), "body", line)
		}
		seen[columns[i].Name]++
	}
	if err := checkChosen(chosen, seen); err != nil {
		return nil, err
	}
	assignKnown(columns, chosen)
	if !slices.ContainsFunc(columns, func(c Column) bool { return slices.Contains(findingFields, c.Field) }) {
		return nil, message.InvalidField(message.SlugMissing, fmt.Sprintf("the file has the columns %s; at least one must be %s, under its usual name or by the parameter columns",
			listed(header), strings.Join(findingFields, ", ")), "body", line)
	}
	return columns, nil
}

// checkChosen checks a mapping that the caller gave against the columns of the file.
func checkChosen(chosen map[string]string, seen map[string]int) error {
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		field := chosen[name]
		custom, isCustom := strings.CutPrefix(field, customPrefix)
		switch {
		case seen[name] == 0:
			return message.InvalidField(message.SlugValue, "the file has no such column", "query", "columns", name)
		case seen[name] > 1:
			return message.InvalidField(message.SlugValue, "the file has this column more than once", "query", "columns", name)
		case field == "":
			continue
		case isCustom && !message.ValidFieldName(custom):
			return message.InvalidField(message.SlugValue, message.FieldNameBound, "query", "columns", name)
		case !isCustom && cellField(field) == nil:
			return message.InvalidField(message.SlugValue, "is not a field of a lead: a custom field is custom_fields.NAME", "query", "columns", name)
		case taken[field] != "":
			return message.InvalidField(message.SlugValue, fmt.Sprintf("the column %q is mapped to %s already", taken[field], field), "query", "columns", name)
		}
		taken[field] = name
	}
	return nil
}

// assignKnown assigns the fields: first as chosen, then by the usual names, and what is left as custom fields. Of several
// columns for a field the one with the lowest rank wins, and then the first; the others become custom fields.
func assignKnown(columns []Column, chosen map[string]string) {
	taken := map[string]bool{}
	for _, field := range chosen {
		taken[field] = true
	}
	best := map[string]int{} // by field: the column with the lowest rank
	for i, c := range columns {
		if _, ok := chosen[c.Name]; ok {
			continue
		}
		k, ok := known(c.Name)
		if !ok || taken[k.field] {
			continue
		}
		j, ok := best[k.field]
		if best[k.field] = i; !ok {
			continue
		}
		if other, _ := known(columns[j].Name); other.rank <= k.rank {
			best[k.field] = j
		}
	}
	for field, i := range best {
		columns[i].Field = field
		taken[field] = true
	}
	used, named := map[string]bool{}, map[string]bool{}
	for i := range columns {
		c := &columns[i]
		if field, ok := chosen[c.Name]; ok {
			c.Field = field
			used[field] = true
			continue
		}
		if c.Field != "" {
			named[c.Name] = true
			continue
		}
		name := strings.TrimPrefix(c.Name, customPrefix)
		field := customPrefix + name
		// A column without a name, or with a name that another column has, is left out.
		if message.ValidFieldName(name) && !used[field] && !taken[field] && !named[c.Name] {
			c.Field = field
			used[field] = true
		}
	}
}

// listed lists names for a message, at most ten.
func listed(names []string) string {
	const most = 10
	quoted := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		if r := []rune(n); len(r) > 40 {
			n = string(r[:40]) + "…"
		}
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	text := strings.Join(quoted, ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text
}
