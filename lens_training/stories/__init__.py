"""A small world of generated stories, and a small target model that has read them: what lenses are proved on."""
