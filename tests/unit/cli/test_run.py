from vitsearch.cli.run import skipped_note


def test_a_note_names_the_first_broken_images_and_counts_the_others():
    names = [f"cats/{i}.png" for i in range(12)]
    assert skipped_note(names[:1]) == "note: 1 image cannot be decoded and is left out: cats/0.png"
    assert skipped_note(names[:2]) == "note: 2 images cannot be decoded and are left out: cats/0.png, cats/1.png"
    assert skipped_note(names).endswith(
        "12 images cannot be decoded and are left out: " + ", ".join(names[:5]) + " and 7 more"
    )
