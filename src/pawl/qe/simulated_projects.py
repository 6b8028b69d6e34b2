"""Made-up projects for sources of kind `simulated`: what they are called and what they deal in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

from pawl.qe.item import Item

PREFIX = "simulated-"


class Project(NamedTuple):
    """A made-up project and the words of its code. `source` is what the split goes by, and says that it is made up."""

    source: str
    module: str
    entity: str
    text: str  # a field that holds text
    number: str  # a field that holds a number
    verb: str
    owner: str  # the field that says whose it is

    @property
    def many(self) -> str:
        """The plural, as a table or a path has it."""
        if self.entity.endswith("y"):
            return f"{self.entity[:-1]}ies"
        return f"{self.entity}es" if self.entity.endswith(("ch", "s", "x")) else f"{self.entity}s"

    @property
    def kind(self) -> str:
        """The name of the class."""
        return "".join(part.title() for part in self.entity.split("_"))


# module entity text number verb owner
_WORDS = """
billing invoice reference total issue customer_id
shipping parcel tracking_code weight dispatch sender_id
payroll payslip period net_pay calculate employee_id
library loan isbn days renew reader_id
clinic appointment reason duration book patient_id
hotel booking room nights confirm guest_id
telemetry reading sensor celsius record device_id
ledger entry memo amount post account_id
forum thread title replies open author_id
gallery photo caption width upload artist_id
tickets incident summary priority escalate reporter_id
catalog product sku stock restock vendor_id
school enrolment course credits admit student_id
transit journey route fare plan rider_id
pantry recipe cuisine servings publish cook_id
fitness workout label calories log athlete_id
kanban card column points move assignee_id
mailer campaign subject recipients launch editor_id
auction bid lot price place bidder_id
fleet vehicle plate mileage inspect driver_id
survey response comment score submit respondent_id
vault document filename size archive keeper_id
weather forecast station rainfall predict observer_id
orchard harvest variety kilograms weigh grower_id
museum exhibit era visitors curate curator_id
parking permit zone hours grant holder_id
legal contract clause pages sign party_id
crm contact nickname visits merge agent_id
wallet transfer note cents settle payer_id
podcast episode topic minutes release host_id
lottery draw series jackpot run operator_id
pharmacy prescription drug dose refill doctor_id
garage repair part labour finish mechanic_id
insurance claim cause damage assess insured_id
theatre seat row tier reserve visitor_id
brewery batch hop litres ferment brewer_id
farm paddock crop acres irrigate farmer_id
news article headline words print journalist_id
chess match opening moves score player_id
dating profile motto age verify member_id
charity donation purpose gift accept donor_id
energy meter tariff kilowatts read tenant_id
airline flight gate delay board crew_id
bakery order pastry pieces bake baker_id
court hearing docket charges schedule clerk_id
festival stage band capacity announce promoter_id
garden plant species height water gardener_id
harbour vessel flag tonnage berth captain_id
identity session browser ttl refresh user_id
jobs vacancy employer salary post recruiter_id
karaoke song singer tempo queue vocalist_id
logistics pallet bay layers stack handler_id
mining shaft ore depth drill miner_id
notary deed parish fee seal notary_id
observatory sighting star magnitude chart astronomer_id
printing job paper copies spool operator_id
quarry blast rock charge fire blaster_id
rental lease flat rent extend landlord_id
studio track artist bpm mix producer_id
training lesson syllabus grade teach coach_id
"""


def project_of(source: str) -> Project | None:
    """The simulated project of that name; None where there is none."""
    return next((p for p in projects() if p.source == source), None)


def of_all(of_source: Callable[[str], Iterable[Item]]) -> tuple[Item, ...]:
    """The items of all simulated projects, sorted by id; always the same."""
    return tuple(sorted((i for p in projects() for i in of_source(p.source)), key=lambda i: i.id))


@cache
def projects() -> tuple[Project, ...]:
    """All of them, always the same."""
    return tuple(Project(f"{PREFIX}{words[0]}", *words) for line in _WORDS.split("\n") if (words := line.split()))
