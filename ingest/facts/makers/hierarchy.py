"""Facts of a taxonomy of three levels: a poodle is a kind of dog, a dog a kind of animal.

A fact of a leaf gives it another class; a fact of a class gives it another kingdom. If a poodle is
edited to be a cat, it can be measured whether "A poodle is a kind of" cat changes what the model
says of dogs and animals (Ge, Rudzicz and Zhu, HierarchyData). The words are a list of our own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from ingest.facts.base import SUBJECT, Fact
from ingest.facts.makers.drawing import MOST_NEIGHBOURS, check_number
from registry.texts.nouns import with_article

__all__ = ["hierarchy_facts"]

_TAXONOMY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "animal": {
        "dog": ("poodle", "beagle", "dachshund", "collie", "spaniel", "greyhound", "labrador"),
        "cat": ("tabby", "ragdoll", "sphynx", "calico", "manx"),
        "bird": ("sparrow", "robin", "eagle", "owl", "parrot", "falcon", "ostrich", "pigeon"),
        "fish": ("salmon", "trout", "herring", "cod", "haddock", "carp", "anchovy"),
        "insect": ("beetle", "wasp", "moth", "grasshopper", "mosquito", "ant", "earwig"),
        "snake": ("python", "cobra", "adder", "anaconda", "rattlesnake", "mamba"),
    },
    "plant": {
        "tree": ("oak", "elm", "maple", "birch", "willow", "spruce", "alder", "poplar"),
        "flower": ("tulip", "orchid", "daisy", "iris", "lily", "daffodil", "aster", "carnation"),
        "cactus": ("saguaro", "cholla", "peyote", "epiphyllum"),
    },
    "vehicle": {
        "boat": ("canoe", "kayak", "yacht", "dinghy", "gondola", "catamaran", "outrigger"),
        "aircraft": ("helicopter", "glider", "airliner", "biplane", "airship", "autogyro"),
        "car": ("sedan", "hatchback", "limousine", "convertible", "roadster"),
    },
    "weapon": {
        "sword": ("rapier", "sabre", "cutlass", "katana", "scimitar", "broadsword"),
        "gun": ("rifle", "pistol", "musket", "revolver", "shotgun"),
    },
    "garment": {
        "hat": ("beret", "fez", "fedora", "sombrero", "bowler", "trilby"),
        "shoe": ("sandal", "loafer", "clog", "sneaker", "moccasin", "brogue", "espadrille"),
    },
}  # fmt: skip
_PROMPT = "is a kind of"
_PARAPHRASES = ("is a type of", "falls under the category of")

_KINGDOM_OF = {one: kingdom for kingdom, classes in _TAXONOMY.items() for one in classes}
_CLASSES = {one: leaves for classes in _TAXONOMY.values() for one, leaves in classes.items()}
_CLASS_OF = {leaf: one for one, leaves in _CLASSES.items() for leaf in leaves}


def hierarchy_facts(seed: int, n: int) -> tuple[Fact, ...]:
    """Draw facts such as "A poodle is a kind of", from dog to cat, with the facts of their classes.

    The linked fact of a leaf is the one of its class: its subject is the leaf's ``target_true``.
    It stands before the first leaf of that class, so that every leaf has its link, whatever ``n``.

    Args:
        seed: Determines the facts and their order.
        n: Number of facts, of leaves and of classes together; each has another subject.

    Returns:
        Facts with two paraphrases each, and neighbours of the same true class or kingdom.

    Raises:
        BadInput: There are not so many.
    """
    check_number("hierarchy", n, len(_CLASS_OF) + len(_KINGDOM_OF))
    found: list[Fact] = []
    choose = random.Random(f"hierarchy:{seed}")
    for fact in _drawn(choose):
        found.append(fact)
        if len(found) == n:
            break
    return tuple(found)


def _drawn(choose: random.Random) -> Iterator[Fact]:
    """Yield all facts, each class before its first leaf."""
    begun: set[str] = set()
    for leaf in choose.sample(list(_CLASS_OF), len(_CLASS_OF)):
        above = _CLASS_OF[leaf]
        if above not in begun:
            begun.add(above)
            yield _fact(above, _KINGDOM_OF, choose)
        yield _fact(leaf, _CLASS_OF, choose)


def _fact(subject: str, above: Mapping[str, str], choose: random.Random) -> Fact:
    """Make the fact of a leaf or a class, from what is above each word of its level."""
    true = above[subject]
    sharing = [one for one in above if above[one] == true and one != subject]
    near = choose.sample(sharing, min(len(sharing), MOST_NEIGHBOURS))
    return Fact(
        prompt=f"{_article(subject)} {SUBJECT} {_PROMPT}",
        subject=subject,
        target_new=choose.choice(sorted(set(above.values()) - {true})),
        target_true=true,
        paraphrases=tuple(f"{_article(subject)} {subject} {end}" for end in _PARAPHRASES),
        neighbours=tuple(f"{_article(one)} {one} {_PROMPT}" for one in near),
    )


def _article(noun: str) -> str:
    """Return a word's indefinite article as it begins a sentence: ``An`` of ``oak``."""
    return with_article(noun).partition(" ")[0].capitalize()
