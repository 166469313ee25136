"""One module per stage: a plain async function that reads, decides and acts."""
