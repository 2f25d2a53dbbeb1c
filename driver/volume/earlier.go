package volume

// ParseEarlier parses a volume that an earlier driver took.
func ParseEarlier(asked Asked, defaults Defaults) (Volume, error) {
	asked.Asked = asked.Earlier(table())
	v, err := Parse(asked, defaults)
	mode := table().Read(asked.Dialect, asked.Attributes, nil).Says("mode")
	if mode+v.Profile["mode"] == "" { // All users of such a pod may read its files.
		v.Owner.Mode = nil
	}
	return v, err
}
