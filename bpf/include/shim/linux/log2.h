/* bcc includes it for histograms, which we have none of. */
