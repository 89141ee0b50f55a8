// Copies a text, or shows it to be copied where the browser does not let a page do so.

/** Copy a text; `field` shows it, selected, if that is refused. Returns whether it is copied. */
export async function copy(text, field) {
  try {
    await navigator.clipboard.writeText(text);
    field.hidden = true;
    return true;
  } catch {  // no permission, or not served over https
    field.value = text;
    field.hidden = false;
    field.select();
    return false;
  }
}
