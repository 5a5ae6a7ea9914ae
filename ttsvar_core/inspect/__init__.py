"""Pictures of a search for people: contact sheet, family tree, scores per scale, feature maps, previews. PIL only."""
